"""The shop (nothing is bought again) and the grocery (most is), built once."""

from __future__ import annotations

import shutil

import pytest
import shop_world
from strategy_world import World, grocery_frames


@pytest.fixture(scope="session")
def worlds(tmp_path_factory, built_file):
    folder = tmp_path_factory.mktemp("contract")
    made = {
        "shop": World(shop_world.connect(shutil.copy(built_file, folder / "shop.duckdb"))),
        "grocery": World(shop_world.fill(folder / "grocery.duckdb", grocery_frames())),
    }
    yield made
    for world in made.values():
        world.con.close()


@pytest.fixture(params=["shop", "grocery"])
def world(request, worlds) -> World:
    return worlds[request.param]
