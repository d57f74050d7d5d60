"""Conversion for people: faces and voices, guided by a face, a voice or a latent code.

>>> converter = Converter.load("runs/mini")  # doctest: +SKIP
>>> face = converter.convert_face("me.jpg", voice_reference="friend.wav")  # doctest: +SKIP
>>> face.save("me_as_friend.png")  # doctest: +SKIP

Tasks are named guidance to output: ``Task.A2I`` converts a face after a voice.
"""

from xfavot.convert.converter import Converter as Converter
from xfavot.convert.converter import Task as Task
from xfavot.convert.sheet import Grid as Grid
from xfavot.convert.sheet import Panel as Panel
from xfavot.convert.sheet import convert_grid as convert_grid
from xfavot.convert.sheet import sample_grids as sample_grids
from xfavot.data.sample import samples as samples
from xfavot.data.store import open_stores as open_stores
