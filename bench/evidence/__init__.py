"""What pruned models are worth once they are trained: `python -m bench.evidence` runs the grid and writes the page.

protocols   the declared grids: which arms, models, data, budgets and seeds
tasks       one cell that is to be filled: everything that decides its result, and its file's name
arms/       the methods that are compared, one table
case        what an arm gets to work with, and what it gives back
filling     one task: prune, train, count, export, measure; the result is a cell
amounts     for how many epochs, by training steps that are timed in turns
cells       cells as files: stored whole, found again, refused when out of date, merged
pieces      cells as pieces, which may be done in other processes
running     all tasks of a protocol: several at once, stopped and continued
asked       cells as accuracies by arm and pair
pairs       mean, deviation and paired tests
references  published figures to compare with
hour        starts and amounts of training, by the time that they take
claims      what is claimed, beside what the cells say
page        docs/evidence.md from the cells
plots       the cells as pictures to look into, with plotly
pictures    the same, still, for the page
"""
