#!/usr/bin/env bash
# nbclient 0.11.0: what a notebook closed and deleted is still in its executed copy
#
# Guessed:  the state of the widgets that nbclient (and with it papermill and nbconvert --execute)
#           saves in an executed notebook is that of the widgets there are, as ipywidgets'
#           Widget.get_manager_state() gives it and as close() promises.
# Seen:     nbclient follows a widget's opening and its updates, but not its closing. A notebook that
#           plays eight clips one after the other and closes each player before the next ends with
#           one; ipywidgets' state has one player, the file all eight, each clip's samples in full.
# Matters:  an executed notebook is the record that is published. It grows with everything that was
#           ever shown, and a recording that the notebook took back, of somebody who did not consent,
#           goes out with it although no reader sees a player. Clear the metadata (nbstripout, or
#           store_widget_state=False), or keep such data out of widgets.
# Fails when closed players are left out, or ipywidgets keeps them as well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nbclient==0.11.0 ipywidgets==8.1.9 ipykernel==7.4.0
cd "$folder"
venv/bin/python - <<'PY'
import base64
import json

import nbclient
from nbformat.v4 import new_code_cell, new_notebook

CLIPS, BYTES = 8, 4000
play = f"""
import json
from ipywidgets import Audio, Widget

for clip in range({CLIPS}):
    player = Audio(value=bytes([clip]) * {BYTES}, format="wav", autoplay=False)
    display(player)
    if clip < {CLIPS - 1}:
        player.close()
        del player
"""
count = """
state = Widget.get_manager_state()["state"]
print(json.dumps([model["model_name"] for model in state.values()]))
"""
notebook = new_notebook(cells=[new_code_cell(play), new_code_cell(count)])
nbclient.NotebookClient(notebook, kernel_name="python3").execute()

live = json.loads(notebook.cells[1].outputs[0].text)
state = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"].state
saved = [model["model_name"] for model in state.values()]
clips = {
    base64.b64decode(buffer["data"])[0]
    for model in state.values()
    for buffer in model.get("buffers", ())
    if len(base64.b64decode(buffer["data"])) == BYTES
}
print("players: ipywidgets", live.count("AudioModel"), "file", saved.count("AudioModel"))
print("clips in the file:", sorted(clips))
assert live.count("AudioModel") == 1, "ipywidgets keeps closed players as well"
assert saved.count("AudioModel") == CLIPS, "closed players are left out now"
assert clips == set(range(CLIPS)), clips
PY
