"""The resident service, over a real socket, with the official `openai` client."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from antefix.records.header import RECORD_LIMIT
from antefix_client import PersonalModel
from antefix_client.cli.serve import _socket
from antefix_client.errors import ProfileUnwritable
from antefix_client.inference.export import export_content
from antefix_client.service.app import Service
from antefix_client.service.http import LARGEST_BODY
from tests.client.people import KEY, NOTES, tiny_folder
from tests.support import tiny_models
from tests.support.loopback import serving

pytestmark = pytest.mark.slow

TOKEN = "a token of the tests"


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PersonalModel]:
    folder = tmp_path_factory.mktemp("service") / "profile"
    with PersonalModel.create(folder, unlock=KEY, base=tiny_models.base("llama")) as model:
        model.remember(NOTES)
        model.learn(progress=False)
        yield model


@pytest.fixture(scope="module")
def address(learned: PersonalModel) -> Iterator[str]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    where = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with serving(Service(learned).application(TOKEN), listening):
        yield where


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=TOKEN, max_retries=0) as made:
        yield made


@pytest.fixture
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as made:
        yield made


def test_completions(client: openai.OpenAI, learned: PersonalModel) -> None:
    wanted = learned.generate("Note 3:", max_new_tokens=9)
    found = client.completions.create(model="personal", prompt="Note 3:", max_tokens=9, temperature=0)
    assert found.choices[0].text == wanted
    assert found.choices[0].finish_reason in ("length", "stop")
    assert found.usage is not None
    assert found.usage.completion_tokens <= 9
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


def test_completions_in_a_stream(client: openai.OpenAI, learned: PersonalModel) -> None:
    wanted = learned.generate("Note 3:", max_new_tokens=9)
    chunks = list(
        client.completions.create(
            model="personal",
            prompt="Note 3:",
            max_tokens=9,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == wanted
    assert chunks[-1].usage is not None
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] is not None


def test_logprobs(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "personal", "prompt": "Note 3:", "max_tokens": 5, "temperature": 0}
    create: Any = client.completions.create
    found = create(**asked, logprobs=3).choices[0].logprobs
    parts = [chunk.choices[0].logprobs for chunk in create(**asked, logprobs=3, stream=True)]
    assert [value for part in parts for value in part.token_logprobs] == found.token_logprobs
    assert all(1 <= len(top) <= 3 for top in found.top_logprobs)  # two tokens may be written alike


def test_the_same_seed_gives_the_same_text(client: openai.OpenAI) -> None:
    def once(seed: int) -> str:
        found = client.completions.create(model="m", prompt="Note", max_tokens=12, temperature=1.5, seed=seed)
        return found.choices[0].text

    assert once(1) == once(1)
    assert len({once(seed) for seed in range(6)}) > 1


def test_models(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["personal"]


def test_chat_needs_a_template(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="has no chat template"):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])


def test_chat(address: str, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    monkeypatch.setattr(tiny_models.tokenizer(), "chat_template", template)
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "Note 5"},
    ]
    asked = {"model": "m", "messages": turns, "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(**asked)  # type: ignore[call-overload]
    assert whole.choices[0].message.role == "assistant"
    parts = list(client.chat.completions.create(**asked, stream=True))  # type: ignore[call-overload]
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole.choices[0].message.content
    assert parts[0].choices[0].delta.role == "assistant"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": 7}, "prompt: input should be a valid string"),
        ({}, "prompt: field required"),
        ({"prompt": "a", "n": 2}, "n: input should be 1"),
        ({"prompt": "a", "logit_bias": {}}, "logit_bias: extra inputs are not permitted"),
        ({"prompt": "a", "prefix": "other"}, "prefix: extra inputs"),
        ({"prompt": "a", "a private word": 1}, "an unknown field: extra inputs"),
        (
            {"prompt": "a", "stream_options": {"a private word": "x"}},
            "stream_options.an unknown field: input",
        ),
        ({"prompt": "a", "model": "\ud800"}, "half of a surrogate pair"),
        ({"prompt": "a " * 5000}, "base sees"),
        ([], "not a json object"),
    ],
)
def test_what_cannot_be_answered_is_refused(body: object, said: str, http: httpx.Client) -> None:
    found = http.post("/v1/completions", content=json.dumps(body))
    assert found.status_code == 400
    assert "private" not in found.text
    assert said in found.json()["error"]["message"].lower()


def test_a_large_body_is_refused(http: httpx.Client) -> None:
    found = http.post("/v1/completions", content=b" " * (LARGEST_BODY + 1))
    assert found.status_code == 413
    assert "send less at a time" in found.text


def test_a_record_may_be_as_large_as_the_format_allows(http: httpx.Client) -> None:
    large = http.post("/antefix/v1/receive", content=bytes(LARGEST_BODY + 1))
    assert (large.status_code, large.json()["error"]["type"]) == (400, "RecordMismatch")  # read, and judged
    larger = http.post("/antefix/v1/receive", content=bytes(RECORD_LIMIT + 1))
    assert (larger.status_code, larger.json()["error"]["type"]) == (413, "refused")
    assert "send less" not in larger.text


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer other"}, {"Authorization": TOKEN}])
def test_without_the_token_nothing_is_answered(headers: dict[str, str], address: str) -> None:
    for path in ("/health", "/v1/models", "/antefix/v1/status"):
        answer = httpx.get(address + path, headers=headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (401, "refused")


@pytest.mark.parametrize("headers", [{"Host": "evil.example:80"}, {"Origin": "https://evil.example"}])
def test_a_web_page_is_not_answered(headers: dict[str, str], http: httpx.Client) -> None:
    answer = http.get("/antefix/v1/status", headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "refused")


def test_antefix_operations_over_a_unix_socket(tmp_path: Path) -> None:
    with PersonalModel.create(tmp_path / "profile", unlock=KEY, base=tiny_models.base("llama")) as model:
        path = tmp_path / "profile" / "service.sock"
        with serving(Service(model).application(None), _socket(path)):
            assert path.stat().st_mode & 0o777 == 0o600
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport, base_url="http://antefix/antefix/v1", timeout=60) as http:
                assert http.post(
                    "/remember", json={"texts": [*NOTES, {"completion": "c", "prompt": "p"}]}
                ).json() == {"new": 25}
                assert http.get("/status").json()["texts"] == 25
                report = http.post("/learn", json={"tokens": 10_000}).json()
                assert report["kept"], report
                assert [one["number"] for one in http.get("/versions").json()] == [1]
                assert http.post("/score", json={"texts": NOTES[:2]}).json()["nats_per_token"] > 0
                refused = http.post("/roll_back", json={})
                assert refused.status_code == 400
                assert "no version before" in refused.json()["error"]["message"]
                check_what_goes_in_and_out(http, model)
                assert http.post("/forget").json() == {"forgotten": True}
                assert http.get("/status").status_code == 503
    assert not (tmp_path / "profile" / "keys").exists()


def check_what_goes_in_and_out(http: httpx.Client, model: PersonalModel) -> None:
    rows = http.get("/texts").json()
    assert rows[-1] == {"number": 25, "prompt": "p", "completion": "c"}
    assert http.post("/remove_texts", json={"numbers": [25, 99]}).json() == {"removed": 1}
    assert len(http.get("/texts").json()) == 24
    record = http.get("/export", params={"what": "record"}).content
    assert record == export_content(model.runtime, "record")
    assert http.post("/receive", content=record).json()["number"] == 1
    assert http.post("/receive", content=b"no record").status_code == 400
    assert http.get("/export", params={"what": "keys"}).status_code == 400
    folder = http.get("/export", params={"what": "peft"})
    assert (folder.status_code, "use one of prefix, record, texts" in folder.text) == (400, True)
    assert (
        http.get("/export").content[-500:] == export_content(model.runtime, "prefix")[-500:]
    )  # metadata has no order
    assert http.get("/export", params={"what": "texts"}).content == export_content(model.runtime, "texts")
    assert http.get("/forget").status_code == 405


def test_many_at_once(client: openai.OpenAI, learned: PersonalModel) -> None:
    wanted = learned.generate("Note 1", max_new_tokens=6)
    found: list[str] = []

    def ask() -> None:
        answer = client.completions.create(model="m", prompt="Note 1", max_tokens=6, temperature=0)
        found.append(answer.choices[0].text)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 8


@pytest.mark.slow
def test_the_command_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "base")
    folder, key = tmp_path / "profile", tmp_path / "key"
    key.write_bytes(KEY)
    PersonalModel.create(folder, unlock=KEY, base=str(tmp_path / "base")).close()
    command = [sys.executable, "-c", "from antefix_client.cli import main; main()"]
    words = ["serve", "--profile", str(folder), "--key-file", str(key)]
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"antefix serves on unix:{folder}/service.sock\n"
        second = subprocess.run(
            [*command, "status", *words[1:]], capture_output=True, text=True, check=False, timeout=60
        )
        assert second.returncode == 1
        assert f"in use by process {process.pid}" in second.stderr
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=f"{folder}/service.sock", retries=20), base_url="http://antefix"
        ) as http:
            assert http.get("/health").json() == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not (folder / "service.sock").exists()
    PersonalModel.open(folder, unlock=KEY).close()


def test_any_number_of_seconds_can_be_asked_for(tmp_path: Path) -> None:
    with PersonalModel.create(tmp_path / "profile", unlock=KEY, base=tiny_models.base("llama")) as model:
        model.remember(NOTES)
        with (
            serving(Service(model).application(None)) as address,
            httpx.Client(base_url=address, timeout=60) as http,
        ):
            found = http.post("/antefix/v1/learn", json={"seconds": 1e308})
            assert found.status_code == 200
            assert found.json()["kept"]
            found = http.post("/antefix/v1/learn", content='{"seconds": NaN}')
            assert found.status_code == 400


def test_a_socket_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "service.sock").mkdir()
    with pytest.raises(ProfileUnwritable, match=r"service\.sock cannot be read or written"):
        _socket(tmp_path / "service.sock")
