"""`carspotter garage …`: what is in a garage, and changes to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carspotter.cli.options import Body, GarageFile, Json, Make, Quiet, Year
from carspotter.cli.output import in_json

app = typer.Typer(help="List, forget and rename the cars that were taught.", no_args_is_help=True)


@app.command("list")
def list_(garage: GarageFile, as_json: Json = False, quiet: Quiet = False) -> None:
    """List the cars of a garage.

    Example: carspotter garage list --garage garage.npz
    """
    from dataclasses import asdict

    from carspotter.garage import in_photos, read_garage

    found = read_garage(garage)
    if as_json:
        taught = [{**asdict(car.name), "photos": len(car.photos)} for car in found.cars]
        about = {"garage": str(garage), "model": found.model.to_dict(), "cars": taught}
        print(in_json(about))
        return
    cars = "1 car" if len(found.cars) == 1 else f"{len(found.cars)} cars"
    print(f"{garage}: {cars}, taught to {found.model.name}")
    for car in found.cars:
        print(f"  {car.name.label}, {in_photos(len(car.photos))}")


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="The car.")],
    garage: GarageFile,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take a car out of a garage.

    Example: carspotter garage forget "Rivian R1T Crew Cab 2022" --garage garage.npz
    """
    from carspotter.garage import editing, read_garage, write_garage

    _need(garage)
    with editing(garage) as path:
        write_garage(path, read_garage(path).forget(name))
    if as_json:
        print(in_json({"garage": str(garage), "forgotten": name}))
    elif not quiet:
        print(f"{garage}: {name} is forgotten")


@app.command()
def rename(
    name: Annotated[str, typer.Argument(help="The car.")],
    to: Annotated[str, typer.Argument(metavar="NEW_NAME", help="What it is to be called.")],
    garage: GarageFile,
    make: Make = None,
    body: Body = None,
    year: Year = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give a car of a garage another name, or the same one with its parts.

    Example: carspotter garage rename "Rivian" "Rivian R1T Crew Cab 2022" --make Rivian
    --body "Crew Cab" --year 2022 --garage garage.npz
    """
    from dataclasses import asdict

    from carspotter.garage import editing, read_garage, write_garage
    from carspotter.names import name_of

    new = name_of(to, make=make, body=body, year=year)
    _need(garage)
    with editing(garage) as path:
        write_garage(path, read_garage(path).rename(name, new))
    if as_json:
        print(in_json({"garage": str(garage), "renamed": name, **asdict(new)}))
    elif not quiet:
        print(f"{garage}: {name} is now {new.label}")


def _need(garage: Path) -> None:
    """Refuse a file that is not there, before a lock is laid beside it."""
    from carspotter.garage import read_garage

    if not garage.exists():
        read_garage(garage)
