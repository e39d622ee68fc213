"""The command line's commands, a file each. Heavy modules are imported inside them, so that ``--help`` is quick."""
