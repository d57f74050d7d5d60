"""Conversion for people: faces and voices, guided by a face, a voice or a latent code.

>>> converter = Converter.load("runs/mini")  # doctest: +SKIP
>>> face = converter.convert_face("me.jpg", voice_reference="friend.wav")  # doctest: +SKIP
>>> face.save("me_as_friend.png")  # doctest: +SKIP

Tasks are named guidance to output: ``Task.A2I`` converts a face after a voice.
"""

from xfavot.convert.converter import Converter, Task
from xfavot.convert.sheet import Grid, Panel, convert_grid, sample_grids
from xfavot.data.sample import samples
from xfavot.data.store import open_stores

__all__ = [
    "Converter",
    "Grid",
    "Panel",
    "Task",
    "convert_grid",
    "open_stores",
    "sample_grids",
    "samples",
]
