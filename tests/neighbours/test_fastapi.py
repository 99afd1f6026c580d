"""The FastAPI example under uvicorn, asked over HTTP by several clients at once."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import shop_world

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install -e '.[fastapi]'")
pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install -e '.[fastapi]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def address(shop):
    import uvicorn

    from m6rec_udf.examples.fastapi_app import make

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(make(shop), host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < end
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


def ask(url, method="GET", body=None):
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, method=method, data=data, headers={"content-type": "application/json"})) as answer:
        return json.load(answer)


def test_concurrent_requests_answer_as_one_does(address, shop):
    users = [*shop_world.USERS[:30], "nobody"]
    alone = {user: [r["item_id"] for r in shop_world.recommend(shop, user, "k := 5")] for user in users}
    with ThreadPoolExecutor(8) as pool:
        urls = [f"{address}/people/{user}/recommendations?k=5" for user in users * 3]
        answers = list(pool.map(ask, urls))
    assert [[row["item_id"] for row in answer] for answer in answers] == [alone[user] for user in users * 3]


def test_lists_and_reactions_of_concurrent_clients_are_all_logged(address, shop):
    def visit(user):
        shown = ask(f"{address}/people/{user}/lists?k=5", "POST")
        ask(f"{address}/reactions", "POST", {"impression_id": shown[0]["impression_id"], "event_type": "click"})
        return shown

    with ThreadPoolExecutor(8) as pool:
        visits = list(pool.map(visit, shop_world.USERS[:24]))
    ids = {row["impression_id"] for shown in visits for row in shown}
    assert len(ids) == 24 * 5
    logged = shop_world.rows(shop, "select impression_id from m6.impressions")
    assert ids <= {row[0] for row in logged}
    clicked = "select count(*) from m6.feedback where event_type = 'click' and impression_id in (select unnest(?))"
    assert shop_world.rows(shop, clicked, [sorted(ids)]) == [(24,)]
    assert shop_world.rows(shop, "select event_type from m6.history('u00', k := 1)") == [("click",)]


@pytest.mark.parametrize(
    ("path", "method", "body", "status"),
    [
        ("/people/u00/recommendations?k=0", "GET", None, 422),
        ("/reactions", "POST", {"impression_id": "none", "event_type": "click"}, 404),
        ("/reactions", "POST", {"impression_id": "none", "event_type": "shout"}, 422),
    ],
)
def test_wrong_requests_are_refused(address, path, method, body, status):
    with pytest.raises(HTTPError) as found:
        ask(address + path, method, body)
    assert found.value.code == status
    found.value.close()
