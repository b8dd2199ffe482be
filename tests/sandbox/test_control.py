"""The sandbox set up from outside: over HTTP below `/_sandbox/`, and by texts as on the command line."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicapi_async.sandbox import Choices, Durations, Fault, Faults, Sandbox
from musicapi_async.sandbox.declared_settings import Setting, WrongSetting, changed, settings_of
from musicapi_async.sandbox.fault_texts import add, fault_words, required
from musicapi_async.sandbox.reply_choices import PRESETS

SONG = {"custom_mode": False, "mv": "sonic-v6", "gpt_description_prompt": "calm rain"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


class Remote:
    """The control, used as from another language."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.token = api.sandbox.control_token

    async def __call__(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        return await self.api.call(method, self.api.sandbox.control_url + path, key=self.token, **options)


@pytest.fixture
async def remote(start):
    """A sandbox and its control."""
    return Remote(await start())


def example(row: Setting) -> object:
    """A value of a setting that is not its default."""
    others = [word for word in row.words if word != row.default]
    if others:
        return others[0]
    return not row.default if isinstance(row.default, bool) else 7


# --- choices and durations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [Choices, Durations])
async def test_each_setting_can_be_set_over_http(remote, declared):
    """Every row of the declaration is set and read back; the document describes just these rows."""
    rows = settings_of(declared)
    path = f"/{declared.__name__.lower()}"
    values = {name: example(row) for name, row in rows.items()}
    status, reply = await remote("PATCH", path, json=values)
    assert status == 200, reply
    assert reply.keys() == rows.keys()
    here = getattr(remote.api.sandbox.service, declared.__name__.lower())
    assert here == changed(declared(), values)
    assert all(reply[name] in (value, [value, 0.0]) for name, value in values.items())
    assert (await remote("GET", path)) == (200, reply)


@pytest.mark.parametrize("declared", [Choices, Durations])
def test_each_setting_has_a_meaning_and_a_text(declared):
    """No row is without help, and each can be set by a text, as on the command line."""
    for name, row in settings_of(declared).items():
        assert row.help, name
        value = example(row)
        text = json.dumps(value) if not isinstance(value, str) else value
        assert changed(declared(), {name: text}, texts=True) == changed(declared(), {name: value})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"running": "hiden"}, "running must be 'visible' or 'hidden', got 'hiden'"),
        ({"runing": "hidden"}, "'runing' is none of the choices (did you mean 'running'?)"),
        ({"stems_full": 13}, "stems_full must be 12 or 24, got 13"),
        ({"voice_name": "yes"}, "voice_name must be true or false, got 'yes'"),
        ({"voice_life": -1}, "voice_life must be a number of at least 0, got -1"),
        ({"webhook_attempts": 0}, "webhook_attempts must be a whole number of 1 to 100, got 0"),
        ({"webhook_attempts": 101}, "webhook_attempts must be a whole number of 1 to 100, got 101"),
        ({"running": "hidden", "mv": 3}, "mv must be 'echo' or 'chirp', got 3"),
    ],
)
async def test_wrong_choices_change_nothing(remote, values, text):
    """An error names the row, the words that are allowed, and what came; no other row is changed."""
    status, reply = await remote("PATCH", "/choices", json=values)
    assert (status, reply["error"]) == (400, text)
    assert remote.api.sandbox.choices == Choices()
    if len(values) == 1 and "runing" not in values:
        with pytest.raises(ValueError, match=next(iter(values))):
            Choices(**values)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(sorted(settings_of(Choices))) | st.text(max_size=8), JSON, max_size=3))
def test_no_value_makes_wrong_choices(values):
    """Whatever comes is refused, or gives choices that can be made again from their own values."""
    try:
        made = changed(Choices(), values)
    except WrongSetting:
        return
    assert Choices(**dataclasses.asdict(made)) == made


async def test_durations_of_one_number_are_exact(remote):
    """A number stands for that median without spread; median and sigma can be given as a list."""
    await remote("PATCH", "/durations", json={"song": 30, "stems": [10, 0.5]})
    durations = remote.api.sandbox.service.durations
    assert (durations.song, durations.stems) == ((30.0, 0.0), (10.0, 0.5))
    assert changed(Durations(), {"song": "40,0.3"}, texts=True).song == (40.0, 0.3)
    assert Durations(song=30, stems=[10, 0.5]) == Durations(song=(30.0, 0.0), stems=(10.0, 0.5))
    status, reply = await remote("PATCH", "/durations", json={"song": -1})
    assert status == 400
    assert "median and sigma" in reply["error"]


async def test_presets(remote):
    """Each preset can be used by name in Python and over HTTP, and is listed with its purpose."""
    assert (await remote("GET", "/presets"))[1].keys() == PRESETS.keys()
    for name in PRESETS:
        assert (await remote("POST", "/preset", json={"like": name}))[0] == 200
        box = Sandbox(like=name)
        assert box.service.choices == remote.api.sandbox.service.choices != Choices()
        assert box.service.durations == remote.api.sandbox.service.durations
    status, reply = await remote("POST", "/preset", json={"like": "vendor-sample"})
    assert (status, "did you mean 'vendor-samples'?" in reply["error"]) == (400, True)
    with pytest.raises(ValueError, match="not both"):
        Sandbox(like="vendor-sdk", choices=Choices())


@pytest.mark.parametrize("name", ["choices", "durations"])
async def test_settings_of_a_wrong_type_are_refused_in_python(name):
    """Where they are set, at the start and later."""
    for wrong in ({"running": "hidden"}, {}, "vendor-sdk", Fault.hang):
        with pytest.raises(TypeError, match=rf"{name} must be {name.capitalize()}\(...\), got"):
            Sandbox(**{name: wrong})
        with pytest.raises(TypeError, match=f"{name} must be"):
            setattr(Sandbox(), name, wrong)
    box = Sandbox()
    box.durations = Durations(song=(30, 0))
    assert box.service.durations.song == (30, 0)


@pytest.mark.parametrize("credits", [float("nan"), -1, float("inf")])
def test_a_balance_that_is_no_number_is_refused(credits):
    """A balance of NaN would pay for anything."""
    with pytest.raises(ValueError, match="credits must be a number of 0 to 1,000,000,000,000, got"):
        Sandbox(credits=credits)


async def test_no_spread_fails_a_create(remote):
    """However wide it is: a task takes at most five times the median."""
    await remote("PATCH", "/durations", json={"song": [40, 1e6]})
    for _ in range(20):
        await remote.api.submit(body=SONG)
    _, tasks = await remote("GET", "/tasks?limit=20")
    assert len(tasks) == 20
    assert all(task.ends - task.created < 201 for task in remote.api.sandbox.service.tasks)


# --- faults ------------------------------------------------------------------------------------------------


def sample_of(name: str) -> dict[str, object]:
    """JSON of a fault with all that it needs."""
    values = {"code": 503, "seconds": 5, "rate": 1000, "word": "paused", "form": "timeout-504"}
    word = fault_words()[name]
    method, path = ("WEBHOOK", "song.completed") if word.scope == "webhook" else ("POST", "/sonic/create")
    given = {option: values[option] for option in required(word)}
    return {"method": method, "path": path, "fault": name, **given}


@pytest.mark.parametrize("name", sorted(fault_words()))
async def test_each_fault_can_be_set_over_http_and_by_text(remote, name):
    """Whatever `Fault` declares is set over HTTP, by a text, and listed; the three agree."""
    values = sample_of(name)
    status, reply = await remote("POST", "/faults", json=values)
    assert status == 200, reply
    assert reply["scripts"][0]["fault"] == name
    options = [f"{key}={value}" for key, value in values.items() if key not in ("method", "path", "fault")]
    text = " ".join([str(values["method"]), str(values["path"]), name, *options])
    by_text = Faults()
    add(by_text, text)
    assert by_text.scripts == remote.api.sandbox.faults.scripts
    status, reply = await remote("POST", "/faults", json={"text": text})
    assert (status, len(reply["scripts"])) == (200, 2)
    assert (await remote("DELETE", "/faults"))[1] == {"scripts": [], "rates": []}


async def test_fault_acts_as_often_as_it_says(remote):
    """`429*2 retry_after=2` hits two creates, with the header, and no third."""
    await remote("POST", "/faults", json={"text": "POST /sonic/create 429*2 retry_after=2"})
    statuses = []
    for _ in range(3):
        statuses.append((await remote.api.post("/sonic/create", SONG))[0])
        if statuses[-1] == 429:
            assert remote.api.headers["Retry-After"] == "2"
    assert statuses == [429, 429, 200]


async def test_fault_at_random(remote):
    """A rate hits a share of all requests; a rate above 1 is refused and changes nothing."""
    assert (await remote("POST", "/faults", json={"fault": "status", "code": 500, "rate": 1}))[0] == 200
    assert (await remote.api.get("/get-credits"))[0] == 500
    status, reply = await remote("POST", "/faults", json={"fault": "refuse", "rate": 0.5})
    assert (status, "add up to at most 1" in reply["error"]) == (400, True)
    assert len((await remote("GET", "/faults"))[1]["rates"]) == 1
    for text in ("POST * fail rate=0.5", "WEBHOOK * lost rate=1", "* * 500 rate=0"):
        assert (await remote("POST", "/faults", json={"text": text}))[0] == 200
    assert [row["fault"] for row in (await remote("GET", "/faults"))[1]["rates"]] == ["fail", "lost"]


async def test_faults_that_wait_are_bounded(remote):
    """Each request is compared with all of them; a program that only ever adds some is told how to forget them."""
    for _ in range(1000):
        remote.api.sandbox.faults.on("POST", "/sonic/create", Fault.hang)
    status, reply = await remote("POST", "/faults", json={"text": "POST /sonic/create 429"})
    assert (status, "DELETE /_sandbox/faults" in reply["error"]) == (400, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("POST /sonic/creat 429", "did you mean '/sonic/create'?"),
        ("GET /sonic/task/{task_id} 503", "path must have * for any text, as in /sonic/task/*"),
        ("GET /media/{file} 503", "path must have * for any text"),
        ("POST /sonic/create 42", "HTTP status of 200 to 599"),
        ("POST /sonic/create refuze", "did you mean 'refuse'?"),
        ("POST /sonic/create slow", "slow needs seconds"),
        ("POST /sonic/create slow seconds=soon", "seconds must be a number"),
        ("POST /sonic/create 429 after", "an option of a fault is name=value"),
        ("POST /sonic/create 429*none", "times must be"),
        ("POST /sonic/create 429*0", "times must be at least 1"),
        ("POST /sonic/create 429 retries=2", "status has no option 'retries'"),
        ("POST /sonic/create fail form=clip", "failure must be"),
        ("POST /sonic/create lost", "lost is a fault of webhooks"),
        ("GET /sonic/task/* fail", "fail is a fault of tasks"),
        ("WEBHOOK song.completed refuse", "refuse is no fault of webhooks"),
        ("WEBHOOK song.done lost", "path must match an event"),
        ("POST /sonic/create 429*x", "times must be a whole number or null, got 'x'"),
        ("POST * 500 rate=0.1", "a fault with a rate hits any request, as in '* * status ... rate=0.1'"),
        ("* * 500 rate=0.1 after=1", "neither times nor after"),
        ("PUT /sonic/create 429", "method must be GET"),
        ("429", "a fault is METHOD PATH FAULT"),
    ],
)
async def test_wrong_faults_are_refused_where_they_are_set(remote, text, said):
    """The text says what is wrong, and no fault waits for a request that never comes."""
    status, reply = await remote("POST", "/faults", json={"text": text})
    assert status == 400
    assert said in reply["error"]
    assert remote.api.sandbox.faults.scripts == ()


@pytest.mark.parametrize("wrong", ["429", 429, None, Fault.fail, Fault])
def test_fault_of_a_wrong_type_is_refused_in_python(wrong):
    """Not when a request comes, but where it is set."""
    with pytest.raises(TypeError, match="fault must be a Fault"):
        Faults().on("POST", "/sonic/create", wrong)
    with pytest.raises(TypeError, match="fault must be a Fault"):
        Faults(rates={wrong: 0.5})


@settings(max_examples=50)
@given(JSON)
def test_no_fault_from_outside_fails_otherwise(values):
    """Any JSON object is a fault, or refused as a whole."""
    faults = Faults()
    try:
        add(faults, values if isinstance(values, dict) else {"fault": "status", "code": values})
    except WrongSetting:
        assert not faults.scripts
        assert not faults.rates


# --- journal, tasks, balance, time -------------------------------------------------------------------------


async def test_journal_is_read_page_by_page(remote):
    """`next` continues where a page ended; nothing of the control is in it; bodies are JSON."""
    for _ in range(3):
        await remote.api.submit(body=SONG)
    status, first = await remote("GET", "/journal?limit=2")
    assert (status, len(first["requests"]), first["charges"]) == (200, 2, 60)
    assert first["requests"][0]["body"] == SONG
    _, second = await remote("GET", f"/journal?limit=2&after={first['next']}")
    numbers = [row["number"] for row in first["requests"] + second["requests"]]
    assert numbers == [1, 2, 3]
    task_id = second["requests"][0]["task_id"]
    await remote.api.get(f"/sonic/task/{task_id}")
    _, of_task = await remote("GET", f"/journal?task_id={task_id}&kind=poll")
    assert [row["path"] for row in of_task["requests"]] == [f"/sonic/task/{task_id}"]
    _, newest = await remote("GET", "/journal?newest=2&bodies=false")
    assert [(row["number"], row["body"]) for row in newest["requests"]] == [(3, None), (4, None)]
    _, emptied = await remote("DELETE", "/journal")
    assert emptied["requests"] == []
    await remote.api.get("/get-credits")
    assert [row["number"] for row in (await remote("GET", "/journal"))[1]["requests"]] == [5]


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=x", "after=1e3", "limit=100000", "kinds=poll", "kind=creates", "bodies=no"]
)
async def test_wrong_parameters_are_refused(remote, query):
    """A parameter that does not exist, or is no number in range."""
    status, reply = await remote("GET", f"/journal?{query}")
    assert status == 400
    assert query.partition("=")[0] in reply["error"]


async def test_time_can_be_moved_forward(remote):
    """An hour later the task is done, and its webhook was due; real time has not passed."""
    task_id = await remote.api.submit(body={**SONG, "webhook_url": "https://elsewhere.example/hook"})
    assert (await remote.api.get(f"/sonic/task/{task_id}"))[0] == 202
    status, clock = await remote("POST", "/clock/forward", json={"seconds": 3600})
    assert status == 200
    assert clock["now"] >= 3600
    body = (await remote.api.get(f"/sonic/task/{task_id}"))[1]
    assert {clip["state"] for clip in body["data"]} == {"succeeded"}
    for _ in range(20):
        _, page = await remote("GET", "/journal?kind=webhook")
        if len(page["requests"]) == 2:
            break
    assert [(row["event"], row["fault"]) for row in page["requests"]] == [
        ("song.streaming", "not_allowed"),
        ("song.completed", "not_allowed"),
    ]
    for seconds in (-1, None, "1", 1e30):
        assert (await remote("POST", "/clock/forward", json={"seconds": seconds}))[0] == 400
    status, reply = await remote("POST", "/clock/forward", json={})
    assert reply["error"] == "seconds must be a number of 0 to 31,622,400, got nothing"


async def test_moves_of_the_time_are_bounded(remote):
    """A day of tests that move the time costs no memory, and what is old stays as old."""
    sandbox = remote.api.sandbox
    begun = sandbox.now()
    for _ in range(2500):
        sandbox.forward(1)
    assert len(sandbox.service.time.forwards) == 1000
    assert 2500 <= sandbox.service.age(begun) < 2600


@pytest.mark.parametrize(
    ("path", "body"), [("/preset", {"like": "vendor-sdk"}), ("/clock/forward", {"seconds": 1})]
)
async def test_unknown_keys_are_refused(remote, path, body):
    """As the document says, everywhere; nothing is changed."""
    status, reply = await remote("POST", path, json={**body, "speed": 3})
    assert (status, "'speed' is unknown here" in reply["error"]) == (400, True)
    assert remote.api.sandbox.choices == Choices()


async def test_balance_can_be_set(remote):
    """Too little, or no subscription: the create is refused as the service refuses it."""
    assert (await remote("PATCH", "/account", json={"credits": 19, "extra_credits": 0}))[0] == 200
    assert (await remote.api.post("/sonic/create", SONG))[0] == 403
    await remote("PATCH", "/account", json={"credits": 20, "subscription": False})
    assert "subscription" in (await remote.api.post("/sonic/create", SONG))[1]["error"]
    status, reply = await remote("PATCH", "/account", json={"credits": "all"})
    assert (status, reply["error"]) == (400, "credits must be a number of 0 to 1,000,000,000,000, got 'all'")
    assert (await remote("PATCH", "/account", json={"money": 1}))[0] == 400


async def test_reset_begins_anew_without_repeating_ids(remote):
    """Nothing of before is there, balance and choices are those of the start, and ids are new."""
    first = await remote.api.submit(body=SONG)
    await remote("PATCH", "/choices", json={"running": "hidden"})
    await remote("POST", "/faults", json={"text": "POST /sonic/create 429*"})
    assert (await remote("POST", "/reset"))[0] == 200
    assert (await remote.api.get("/get-credits"))[1]["credits"] == 1000
    assert remote.api.sandbox.choices == Choices()
    assert (await remote.api.get(f"/sonic/task/{first}"))[0] == 400
    assert (await remote("GET", "/tasks")) == (200, [])
    assert await remote.api.submit(body=SONG) != first


async def test_tasks_are_listed_with_their_clips(remote):
    """The newest first, with state, progress and links."""
    old, new = [await remote.api.submit(body=SONG) for _ in range(2)]
    await remote("POST", "/clock/forward", json={"seconds": 3600})
    _, tasks = await remote("GET", "/tasks")
    assert [task["task_id"] for task in tasks] == [new, old]
    assert {task["state"] for task in tasks} == {"succeeded"}
    assert all(clip["audio_url"].endswith(".mp3") for task in tasks for clip in task["clips"])
    assert len((await remote("GET", "/tasks?limit=1"))[1]) == 1


# --- who may use it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "sandbox-key", "\xe9"])
async def test_control_needs_its_token(remote, key):
    """Neither nothing nor the well-known key of the API opens it; the refusal says where the token is."""
    api = remote.api
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    status, reply = await api.call("GET", api.sandbox.control_url + "/choices", key=None, headers=headers)
    assert status == 401
    assert "printed when it started" in reply["error"]
    assert len(api.sandbox.journal) == 0
    headers = {"Authorization": f"bearer {remote.token}"}  # the scheme has no case (RFC 9110)
    url = api.sandbox.control_url + "/choices"
    assert (await api.call("GET", url, key=None, headers=headers))[0] == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'"x"', b"[" * 5000])
async def test_bodies_that_are_no_object(remote, body):
    """Refused with 400, whichever bytes come."""
    assert (await remote("PATCH", "/choices", data=body))[0] == 400


async def test_unknown_paths_name_the_known(remote):
    """404 lists what there is, and a wrong method is 405."""
    for path in ("/choice", ""):  # the printed address itself, too
        status, reply = await remote("GET", path)
        assert (status, "/_sandbox/choices" in reply["error"]) == (404, True)
    status, reply = await remote("POST", "/choices", json={})
    assert (status, reply["error"]) == (405, "/_sandbox/choices takes GET, PATCH")
    assert remote.api.headers["Allow"] == "GET, PATCH"


async def test_document_describes_every_route(remote):
    """The OpenAPI document needs no token, and names each choice, each fault, and each route."""
    url = remote.api.sandbox.control_url + "/openapi.json"
    status, document = await remote.api.call("GET", url, key=None)
    assert (status, document["openapi"]) == (200, "3.1.0")
    assert document["servers"] == [{"url": remote.api.sandbox.control_url}]
    body = document["paths"]["/choices"]["patch"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"].keys() == settings_of(Choices).keys()
    assert body["properties"]["running"]["enum"] == ["hidden", "visible"]
    assert "not ready until the end" in body["properties"]["running"]["description"]
    faults = document["paths"]["/faults"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {form["title"] for form in faults["oneOf"]} == {*fault_words(), "text"}
    for path, methods in document["paths"].items():
        for method in methods:
            status, _ = await remote(method.upper(), path, json={})
            assert status in (200, 400), (method, path)


async def test_journal_of_large_and_broken_bodies_is_bounded(remote):
    """A page ends after some MB of bodies and continues; what is no JSON is null."""
    for raw in (b'{"a":[' + b"[]," * 100_000 + b"1]}", b"{", b'{"a":"\xff"}', b'"\\ud83d"', b"NaN"):
        await remote.api.call("POST", "/sonic/create", data=raw)
    for _ in range(6):
        await remote.api.call("POST", "/sonic/create", data=b'{"a":"' + b"x" * 1_000_000 + b'"}')
    _, first = await remote("GET", "/journal")
    assert [row["body"] is None for row in first["requests"][:5]] == [False, True, True, True, True]
    assert len(first["requests"]) < 11
    _, rest = await remote("GET", f"/journal?after={first['next']}")
    assert len(first["requests"]) + len(rest["requests"]) == 11
