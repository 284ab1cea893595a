"""The http.api provider against a real server on loopback: what is sent, and a typed error for every way to fail."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import json
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gepa_atlas.connectors import AgentSpec, build_agent
from gepa_atlas.errors import (
    AuthRefused,
    BadRequest,
    CallError,
    CallTimeout,
    ConfigError,
    EmptyAnswer,
    Garbled,
    NotFound,
    RateLimited,
    ServerFault,
    TooLarge,
    Unreachable,
)
from gepa_atlas.ports import Agent
from gepa_atlas.types import Attempt, Task
from tests.connectors.faults import Asked, Server, no_model, task

KEY = "correct-horse-battery-staple"


def agent(endpoint: str, **params: Any) -> Agent:
    spec = AgentSpec(provider="http.api", params={"endpoint": endpoint, "timeout": 10.0, **params})
    return build_agent(spec, build_model=no_model)


def run(built: Agent, asked: Task | None = None) -> Attempt:
    return asyncio.run(built.run(asked or task()))


def refusal(kind: type[CallError], built: Agent, says: str = ".") -> CallError:
    with pytest.raises(CallError, match=says) as caught:
        run(built)
    assert type(caught.value) is kind, caught.value
    assert KEY not in str(caught.value) and "\n" not in str(caught.value)
    return caught.value


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_the_plain_case(server: Server) -> None:
    server.says({"response": "4"})
    attempt = run(agent(server.url), task("2 + 2?", "Be brief."))
    assert attempt.output == "4"
    assert (attempt.usage.calls, attempt.usage.tokens, attempt.usage.dollars) == (1, None, None)
    assert server.asked[0].line == "POST /agent HTTP/1.1"
    assert server.asked[0].json == {"prompt": "Be brief.\n\n2 + 2?"}
    assert server.asked[0].headers["content-type"] == "application/json"


def test_a_nested_template_and_a_nested_answer(server: Server) -> None:
    server.says({"choices": [{"message": {"content": "no"}}, {"message": {"content": "yes"}}]})
    template = {
        "input": {"text": "<<{question}>>", "hints": ["{guidance}"], "shots": "{demos}", "background": "{context}"},
        "n": 2,
        "flags": [True, None],
    }
    built = agent(server.url, request_template=template, response_field="choices.-1.message.content", method="PUT")
    assert run(built, task("2?", "Brief.", context="Sums.", demos=(("1?", "1"),))).output == "yes"
    assert server.asked[0].line.startswith("PUT ")
    assert server.asked[0].json == {
        "input": {"text": "<<2?>>", "hints": ["Brief."], "shots": [{"question": "1?", "answer": "1"}], "background": "Sums."},
        "n": 2,
        "flags": [True, None],
    }


def test_guidance_and_demonstrations_in_fields_of_their_own(server: Server) -> None:
    server.says({"response": "4"})
    built = agent(server.url, guidance="field", guidance_field="instructions", prompt_field="q")
    run(built, task("2?", "Brief.", demos=(("1?", "1"),)))
    assert server.asked[0].json == {"q": "2?", "instructions": "Brief.", "demos": [{"question": "1?", "answer": "1"}]}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("system", [("system", "Brief."), ("user", "1?"), ("assistant", "1"), ("user", "2?")]),
        ("prefix", [("system", "Base."), ("user", "1?"), ("assistant", "1"), ("user", "Brief.\n\n2?")]),
        (
            "turns",
            [("system", "Base."), ("user", "Brief."), ("assistant", "Understood."), ("user", "1?"), ("assistant", "1"), ("user", "2?")],
        ),
    ],
)
def test_a_service_that_takes_chat_turns(server: Server, where: str, expected: list[tuple[str, str]]) -> None:
    server.says({"response": "4"})
    built = agent(server.url, guidance=where, system_prompt="Base.", request_template={"model": "m", "messages": "{messages}"})
    run(built, task("2?", "Brief.", demos=(("1?", "1"),)))
    assert [(m["role"], m["content"]) for m in server.asked[0].json["messages"]] == expected


def test_a_query_with_get(server: Server) -> None:
    server.says("plain answer", kind="text/plain; charset=utf-8")
    built = agent(server.url + "?v=1", method="GET", query={"q": "{prompt}", "lang": "en"}, response_format="text")
    assert run(built, task("a&b=c d?")).output == "plain answer"
    assert parse_qs(urlsplit(server.asked[0].line.split()[1]).query) == {"v": ["1"], "q": ["a&b=c d?"], "lang": ["en"]}
    assert server.asked[0].body == b""


def test_settings_go_to_their_fields_and_others_are_refused(server: Server) -> None:
    server.says({"response": "4"})
    built = agent(server.url, settings_fields={"temperature": "options.temperature", "top": "top"})
    run(built, task("2?", temperature=0.5, top="x"))
    assert server.asked[0].json == {"prompt": "2?", "options": {"temperature": 0.5}, "top": "x"}
    with pytest.raises(BadRequest, match="'heat'"):
        run(built, task("2?", heat=1))


def test_headers_may_hold_variables(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server.says({"response": "4"})
    run(agent(server.url, headers={"Authorization": "Bearer ${MY_KEY}", "X-Team": "a"}, headers_env={"X-Api-Key": "MY_KEY"}))
    sent = server.asked[0].headers
    assert (sent["authorization"], sent["x-team"], sent["x-api-key"]) == (f"Bearer {KEY}", "a", KEY)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="MY_KEY"):
        agent(server.url, headers_env={"X-Api-Key": "MY_KEY"})


def test_hostile_text_arrives_unchanged_and_comes_back_unchanged(server: Server, hostile: str) -> None:
    def echo(asked: Asked, sock: socket.socket) -> None:
        raw = json.dumps({"response": asked.json["in"]["q"]}).encode()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(raw) + raw)

    server.answer = echo
    template = {"in": {"q": "{question}", "g": "{guidance}", "d": "{demos}", "c": "{context}"}}
    attempt = run(agent(server.url, request_template=template), task(hostile, hostile, context=hostile, demos=((hostile, hostile),)))
    assert attempt.output == hostile
    sent = server.asked[0].json["in"]
    assert sent == {"q": hostile, "g": hostile, "c": hostile, "d": [{"question": hostile, "answer": hostile}]}
    assert hostile.encode() not in server.asked[0].line.encode()


# -- what fails -------------------------------------------------------------------------------------------------------


def test_connection_refused() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening
        refusal(Unreachable, agent(f"http://127.0.0.1:{held.getsockname()[1]}/"))


def test_dns_failure() -> None:
    refusal(Unreachable, agent("http://agent.invalid/"), "agent.invalid")


def test_tls_against_a_server_that_speaks_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak_plainly() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=speak_plainly)
        thread.start()
        refusal(Unreachable, agent(f"https://127.0.0.1:{listening.getsockname()[1]}/"), "SSL")
        thread.join()


def test_tls_with_a_certificate_nobody_vouches_for(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    made += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def shake_hands() -> None:
            connection, _ = listening.accept()
            with connection, pytest.raises((ssl.SSLError, OSError)):
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=shake_hands)
        thread.start()
        refusal(Unreachable, agent(f"https://127.0.0.1:{listening.getsockname()[1]}/"), "(?i)certificate")
        thread.join()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad Request", BadRequest),
        ("401 Unauthorized", AuthRefused),
        ("403 Forbidden", AuthRefused),
        ("404 Not Found", NotFound),
        ("408 Request Timeout", CallTimeout),
        ("413 Too Long", BadRequest),
        ("429 Too Many Requests", RateLimited),
        ("500 Oops", ServerFault),
        ("502 Bad Gateway", ServerFault),
        ("302 Found", BadRequest),
    ],
)
def test_each_status_has_its_error_and_no_key_in_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, status: str, kind: type[CallError]
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    server.says({"error": {"message": f"you sent Bearer {KEY}"}}, status=status, Location="http://169.254.169.254/latest")
    built = agent(server.url + "?mode=x", headers={"Authorization": "Bearer ${MY_KEY}"}, query={"token": KEY})
    error = refusal(kind, built, status[:3])
    assert "mode=x" not in str(error)
    assert len(server.asked) == 1, "a connector makes one attempt and follows nothing"


def test_a_key_expanded_by_the_configuration_is_scrubbed_too(server: Server) -> None:
    server.says({"error": "unknown key never-seen-before-key"}, status="401 Unauthorized")
    error = refusal(AuthRefused, agent(server.url, headers={"Authorization": "Bearer never-seen-before-key"}))
    assert "never-seen-before-key" not in str(error)


def test_retry_after_in_seconds_as_a_date_and_absent(server: Server) -> None:
    server.says("{}", status="429 Too Many Requests", Retry_After="7")
    error = refusal(RateLimited, agent(server.url))
    assert isinstance(error, RateLimited) and error.retry_after == 7.0
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    server.says("{}", status="429 Too Many Requests", Retry_After=email.utils.format_datetime(later, usegmt=True))
    error = refusal(RateLimited, agent(server.url))
    assert isinstance(error, RateLimited) and error.retry_after is not None and 60 < error.retry_after <= 100
    server.says("{}", status="429 Too Many Requests")
    error = refusal(RateLimited, agent(server.url))
    assert isinstance(error, RateLimited) and error.retry_after is None


def test_a_fault_and_then_success_are_two_calls(server: Server) -> None:
    built = agent(server.url)
    server.says("oops", status="500 Oops", kind="text/plain")
    refusal(ServerFault, built, "500")
    server.says({"response": "4"})
    assert run(built).output == "4"
    assert len(server.asked) == 2


def test_half_a_response(server: Server) -> None:
    server.answer = lambda asked, sock: sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"respon')
    refusal(Unreachable, agent(server.url))
    server.answer = lambda asked, sock: sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\nabc")
    refusal(Unreachable, agent(server.url))


def test_a_crash_before_and_in_the_answer(server: Server) -> None:
    server.answer = lambda asked, sock: None
    refusal(Unreachable, agent(server.url))
    server.answer = lambda asked, sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
    refusal(Unreachable, agent(server.url))


def test_an_answer_of_another_kind(server: Server) -> None:
    server.says("<html>Please log in</html>", kind="text/html")
    refusal(Garbled, agent(server.url), "not JSON: <html>")
    refusal(Garbled, agent(server.url, response_format="text"), "text/html")
    server.says('{"response": "4"', kind="application/json")
    refusal(Garbled, agent(server.url), "not JSON")
    server.says(b"\x89PNG\r\n\x1a\n\xff\xfe", kind="image/png")
    refusal(Garbled, agent(server.url))


def test_json_under_another_name_is_still_json(server: Server) -> None:
    server.says({"response": "4"}, kind="text/plain")
    assert run(agent(server.url)).output == "4"


def test_invalid_utf8(server: Server) -> None:
    server.says(b'{"response": "\xff\xfe"}')
    refusal(Garbled, agent(server.url), "UTF-8")
    server.says(b"caf\xe9", kind="text/plain")
    refusal(Garbled, agent(server.url, response_format="text"), "UTF-8")


@pytest.mark.parametrize("body", ['{"response": ""}', '{"response": null}', '{"response": " \\n"}', ""])
def test_an_empty_answer(server: Server, body: str) -> None:
    server.says(body)
    refusal(EmptyAnswer, agent(server.url))


@pytest.mark.parametrize(("body", "says"), [({"answer": "4"}, "'answer'"), ([1], "a list of 1"), ("x", "a str")])
def test_an_answer_without_the_field_says_what_there_was(server: Server, body: Any, says: str) -> None:
    server.says(json.dumps(body))
    refusal(Garbled, agent(server.url), says)


@pytest.mark.parametrize(("value", "text"), [(4, "4"), (True, "true"), ({"a": ["ä"]}, '{"a": ["ä"]}')])
def test_an_answer_that_is_no_text_comes_as_json(server: Server, value: Any, text: str) -> None:
    server.says({"response": value})
    assert run(agent(server.url)).output == text


def test_fifty_megabytes_are_not_read(server: Server) -> None:
    sent = 0

    def flood(asked: Asked, sock: socket.socket) -> None:
        nonlocal sent
        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(50):
            sock.sendall(b"x" * 1_000_000)
            sent += 1

    server.answer = flood
    refusal(TooLarge, agent(server.url), "max_bytes")
    assert sent < 40
    server.answer = lambda asked, sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
    refusal(TooLarge, agent(server.url), "50000000")


@pytest.mark.parametrize("first", [b"", b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"re'])
def test_a_hang_ends_at_the_deadline(server: Server, first: bytes) -> None:
    server.hangs(first)
    refusal(CallTimeout, agent(server.url, timeout=0.2), "0.2 seconds")


def test_a_drip_ends_at_the_deadline(server: Server) -> None:
    def drip(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        while not server.over.wait(0.02):
            sock.sendall(b"x")

    server.answer = drip
    refusal(CallTimeout, agent(server.url, timeout=0.3))


def test_a_lone_surrogate_is_refused_before_anything_is_sent(server: Server) -> None:
    with pytest.raises(BadRequest, match="surrogate"):
        run(agent(server.url), task("\ud800"))
    assert server.asked == []


# -- what is refused at load ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"endpoint": "ftp://x/"}, "http:// or https://"),
        ({"endpoint": "localhost:80"}, "http:// or https://"),
        ({"endpoint": "http://me:pw@x/"}, "headers_env"),
        ({"guidance": "system"}, '"{messages}"'),
        ({"request_template": {"a": "b"}}, '"{prompt}" or "{question}"'),
        ({"request_template": {"a": "{question}"}}, "would not reach"),
        ({"request_template": {"a": "{prompt}"}, "guidance": "field"}, "would not reach"),
        ({"request_template": {"a": "{prompt}", "b": "{guidance}"}}, "twice"),
        ({"request_template": {"a": "{prompt}", "b": ["as in {demos}"]}}, "{demos} becomes a list"),
        ({"request_template": {"a": "{prompt}", "b": "{messages}\n"}}, "{messages} becomes a list"),
        ({"request_template": {"a": "{prompt}", "b": 1}, "settings_fields": {"t": "b.c"}}, "leads into a int"),
        ({"method": "GET"}, '"{prompt}" or "{question}"'),
        ({"response_fild": "x"}, "did you mean 'response_field'"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_a_request_that_would_lose_something_is_refused(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        agent(**{"endpoint": "http://127.0.0.1:1/", **params})
    assert "\n" not in str(caught.value)


def test_the_identity_knows_the_request_and_not_the_key() -> None:
    url = "http://127.0.0.1:1/"
    variants: list[dict[str, Any]] = [
        {},
        {"method": "PUT"},
        {"prompt_field": "p"},
        {"response_field": "x"},
        {"guidance": "suffix"},
        {"headers": {"X-Model": "a"}},
        {"headers": {"X-Model": "b"}},
        {"query": {"model": "a"}},
        {"demo_format": "{question} {answer}"},
    ]
    assert len({agent(url, **v).identity for v in variants}) == len(variants)
    assert agent(url, headers={"Authorization": "a"}).identity == agent(url, headers={"Authorization": "b"}).identity
    assert agent(url, timeout=1, max_concurrency=3).identity == agent(url).identity
    assert agent(url).endpoint.name == "http:127.0.0.1:1" == agent(url + "other").endpoint.name


def test_sixty_four_calls_are_in_flight_at_once(server: Server) -> None:
    gate = threading.Barrier(64, timeout=20)

    def together(asked: Asked, sock: socket.socket) -> None:
        gate.wait()  # breaks unless 64 requests are in flight at once
        sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{"response": "4"}')

    server.answer = together

    async def all_at_once() -> list[Attempt]:
        built = agent(server.url, timeout=30.0)
        return await asyncio.gather(*(built.run(task(f"{i}?")) for i in range(64)))

    assert {a.output for a in asyncio.run(all_at_once())} == {"4"}
    assert len({asked.body for asked in server.asked}) == len(server.asked) == 64
