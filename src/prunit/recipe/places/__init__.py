"""Where the trainings of a build are done: here, in processes of this machine, or elsewhere.

- pieces.py: what is done somewhere, a `Piece`; the seam, `Executor`; and `Here`, one piece after the other
- asked.py: what is wrong with what was asked of places (no torch)
- handed.py: what another process needs to do pieces: settings, and the data set as arrays
- benches.py: pieces of a build; what they are done with, made anew in another process
- processes.py: `Processes`, several pieces at once on this machine; worker.py: what such a process does
- on_ray.py: `OnRay`, as tasks of Ray; node.py, written.py: what runs on its nodes, and tells how far it is
- threads.py: threads of each training, the same however many are done at once
"""
