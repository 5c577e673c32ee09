"""The documentation site in site/, from docs/: every link is checked, and one that leads nowhere is an error.

python3 scripts/site.py            # then open site/index.html
python3 scripts/site.py serve      # at http://127.0.0.1:8000/, built anew when a page changes
"""

import sys

import _env

_env.ensure("train,zoo,serve,dev")
# What the builder's makers say about its other versions is of no use to whoever waits for the pages.
quiet = {"NO_MKDOCS_2_WARNING": "1"}
if sys.argv[1:] == ["serve"]:
    _env.run("mkdocs", "serve", environment=quiet)
elif sys.argv[1:]:
    sys.exit("usage: python3 scripts/site.py [serve]")
else:
    _env.run("mkdocs", "build", "--strict", "--clean", "--quiet", environment=quiet)
    print("the site is in site/")
