"""Guidebook: probabilistic models in Pyro, each fitted in every way and compared with known answers.

``guidebook.models``, ``guidebook.guides`` and ``guidebook.inference`` hold the work; importing this package loads none
of them, so that ``guidebook --help`` is quick.
"""

__version__ = "0.1.0"
