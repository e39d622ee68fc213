"""``guidebook list``."""

from guidebook.commands.options import Json, write_json


def list_models(json_file: Json = None) -> None:
    """Show the models with their guides, methods and data, and why cells are empty."""
    from guidebook.catalog.grid import grid_json, print_grid

    if json_file is None:
        print_grid()
    else:
        write_json(grid_json(), json_file)
