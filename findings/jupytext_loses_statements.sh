#!/usr/bin/env bash
# jupytext 1.19.6: a notebook and its paired script compute different numbers
#
# Guessed:  jupytext --to py:percent comments out magics (%, !) and leaves Python as it is, so that
#           the script of a pair computes what its notebook computes; --test would find it otherwise.
# Seen:     a statement that begins with a variable named like a shell command (cd, cp, cat, ls, mv,
#           rm, copy, echo ...) and goes on with anything but "=" or "," is taken for a magic. With
#           the cepstral distance `cd = 40.0` and `cd /= 8` the notebook prints 5.0, the script 40.0:
#           it holds `# cd /= 8`. --test finds nothing, since reading undoes it. The other way round
#           prose becomes code: of `# copy the average's weights` in a script, the notebook gets
#           `copy the average's weights`, and a comment alone in its cell, `# cd ..`, is executed.
# Matters:  pairs are how notebooks are kept in git and run in pipelines; a sum that is never divided
#           goes into a table without an error. IPython itself asks first whether such a name is a
#           variable. `"jupytext": {"comment_magics": false}` in the metadata mends the statements.
# Fails when the script and the notebook agree, or comments stay comments.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jupytext==1.19.6 nbclient==0.11.0 ipykernel==7.4.0
cd "$folder"
venv/bin/python - <<'PY'
import os
import subprocess
import sys

import jupytext
import nbclient
import nbformat
from nbformat.v4 import new_code_cell, new_notebook

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def jupytext_command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "jupytext", *arguments], check=True, stdout=-3)


def printed(notebook: nbformat.NotebookNode) -> str:
    """Execute a notebook and return what its last cell printed."""
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    return notebook.cells[-1].outputs[-1].text.strip()


code = "cd, cat = 40.0, []\ncd /= 8\ncat += ['a']\nprint(cd, cat)"
nbformat.write(new_notebook(cells=[new_code_cell(code)], metadata=KERNEL), "score.ipynb")
jupytext_command("--to", "py:percent", "--test", "score.ipynb")
jupytext_command("--to", "py:percent", "--quiet", "score.ipynb")
notebook = printed(nbformat.read("score.ipynb", 4))
script = subprocess.check_output([sys.executable, "score.py"], text=True).strip()
print(f"notebook: {notebook}\nscript:   {script}")
assert notebook == "5.0 ['a']", notebook
assert script == "40.0 []", "the script computes what the notebook does now"

prose = jupytext.reads("# %%\n# copy the average's weights\nx = 1\n", fmt="py:percent")
print("of a comment:", prose.cells[0].source.splitlines()[0])
assert prose.cells[0].source == "copy the average's weights\nx = 1", "a comment stays one now"

switched_off = "# cd ..\n\n# %%\nimport os\n\nprint(os.getcwd())\n"
with open("place.py", "w") as file:
    file.write("# %%\n" + switched_off)
revived = jupytext.read("place.py")
revived.metadata.update(KERNEL)
as_script = subprocess.check_output([sys.executable, "place.py"], text=True).strip()
as_notebook = printed(revived).splitlines()[-1]
print(f"where the script ends: {as_script}, the notebook: {as_notebook}")
above = os.path.dirname(os.getcwd())
assert (as_script, as_notebook) == (os.getcwd(), above), "a comment is not run any more"

kept = new_notebook(cells=[new_code_cell(code)], metadata={"jupytext": {"comment_magics": False}})
assert code in jupytext.writes(kept, fmt="py:percent"), "comment_magics no longer mends it"
PY
