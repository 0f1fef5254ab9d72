"""A judge is asked over HTTP, again where another try may help, and never the same twice."""

import functools
import json
import subprocess
import sys
import threading
import time

from judge_server import Reply, serving
import pytest

from xgenmm_jax.evaluation import judge as judges
from xgenmm_jax.evaluation.judge import Judge, JudgeError, Server

KEY = "sk-secret-0123456789"
quick = functools.partial(Server, model="m", backoff_s=0.01)


def ask(server, prompt="How many?", temperature=0.0):
    return server.ask(prompt, temperature, threading.Event())


def test_a_request_is_of_openais_form_and_its_reply_is_read():
    with serving(lambda asked: "0.5") as server:
        assert ask(quick(server.url, key=KEY), "A \ud800 ünd {x}?", 1.5) == "0.5"
        assert ask(quick(server.url + "/chat/completions")) == ask(quick(server.url + "/")) == "0.5"
    first, *others = server.asked
    assert first[1:] == ("/v1/chat/completions", "A \ud800 ünd {x}?", 1.5, "m", f"Bearer {KEY}")
    assert {(one.path, one.authorization) for one in others} == {("/v1/chat/completions", None)}


@pytest.mark.parametrize(
    "first",
    [
        Reply(status=429, headers={"Retry-After": "0"}),
        Reply(status=500, body=b"oops"),
        Reply(status=503),
        Reply("cut off", length=10**5),
    ],
)
def test_what_another_try_may_not_meet_is_tried_again(first):
    with serving(lambda asked: first if asked.number < 2 else "1") as server:
        assert ask(quick(server.url)) == "1"
    assert len(server.asked) == 3


def test_a_server_that_asks_for_time_gets_it():
    with serving(lambda asked: "1" if asked.number else Reply(status=429, headers={"Retry-After": "1"})) as server:
        started = time.monotonic()
        assert ask(quick(server.url)) == "1"
    assert time.monotonic() - started >= 1


def test_a_server_that_is_slow_each_time_is_given_up_with_a_sentence():
    rest = threading.Event()
    with serving(lambda asked: "" if rest.wait(5) else "") as server:
        with pytest.raises(JudgeError, match=r"gives no reply \(.*, 2 tries\)"):
            ask(quick(server.url, timeout_s=0.2, tries=2))
        rest.set()
    assert len(server.asked) == 2


def test_a_server_that_fails_each_time_or_is_not_there_is_told_with_its_address():
    with serving(lambda asked: Reply(status=500)) as server:
        with pytest.raises(JudgeError, match=rf"'{server.url}/chat/completions' gives no reply \(status 500, 5 tries"):
            ask(quick(server.url))
    assert len(server.asked) == judges.TRIES
    with pytest.raises(JudgeError, match="Connection refused, 5 tries"):
        ask(quick(server.url))


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(status=401, body=b'{"error": {"message": "no such key: ' + KEY.encode() + b'"}}'), "give the right key"),
        (Reply(status=404, body=b'{"error": {"message": "no model m"}}'), r"404 \(no model m\); correct the address"),
        (Reply(status=400, body=b"<html>\nbad  request"), r"400 \(<html> bad request\); see what it says"),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:9/"}), "302"),
        (Reply(body=b"<html>welcome"), r"no chat completion \(<html>welcome\)"),
        (Reply(body=b'{"choices": []}'), "no chat completion"),
        (Reply(body=b'{"choices": [{"message": {"content": 5}}]}'), "no chat completion"),
        (Reply(body=b"[" * 10**5), "no chat completion"),
        (Reply(body=b"\xff\xfe"), "no chat completion"),
        (Reply(body=b" " * (judges.MOST_READ + 9)), "sends more than 4,194,304 bytes"),
    ],
)
def test_what_no_other_try_would_change_is_told_at_once_in_one_line_without_the_key(reply, words):
    with serving(lambda asked: reply) as server:
        with pytest.raises(JudgeError, match=words) as caught:
            ask(quick(server.url, key=KEY))
    assert len(server.asked) == 1 and "\n" not in str(caught.value) and KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("localhost:8000/v1", {}, "wanted one as http"),
        ("file:///etc/passwd", {}, "wanted one as http"),
        ("http:///v1", {}, "wanted one as http"),
        ("http://a:99999/v1", {}, "wanted one as http"),
        ("http://a/v1\n", {}, "wanted one as http"),
        ("http://me:" + KEY + "@a/v1", {}, "holds a name or password"),
        ("http://a/v1", {"model": ""}, "got no model"),
        ("http://a/v1", {"key": KEY + "\nX: y"}, "the key has a space"),
    ],
)
def test_an_address_or_key_that_cannot_be_one_is_refused_without_repeating_the_key(url, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        Server(url, **{"model": "m", **options})
    assert KEY not in str(caught.value)


def test_the_key_is_in_no_representation():
    assert KEY not in repr(Server("http://a/v1", "m", KEY))


def test_nothing_is_asked_twice_not_by_a_later_judge_nor_at_once(tmp_path):
    def slowly(asked):
        time.sleep(0.05)
        return f"{asked.prompt} {asked.temperature}"

    with serving(slowly) as server:
        first = Judge(quick(server.url, key=KEY), tmp_path / "r.jsonl", threads=4)
        items = ["a", "b", "a", "c", "a", "b", "\ud800"]
        replies = first.each(lambda item: first.reply(item, 0.0), items, lambda count: None)
        assert replies == [f"{item} 0.0" for item in ["a", "b", "a", "c", "a", "b", "\ufffd"]]
        assert len(server.asked) == 4 and server.most_at_once <= 4
        again = Judge(quick(server.url), tmp_path / "r.jsonl")
        assert [again.reply(item, 0.0) for item in items] == replies and len(server.asked) == 4
        assert again.reply("a", 0.5) == "a 0.5" and len(server.asked) == 5
        Judge(quick(server.url, model="other"), tmp_path / "r.jsonl").reply("a", 0.0)
        assert len(server.asked) == 6
    text = (tmp_path / "r.jsonl").read_text()
    assert KEY not in text and len(text.splitlines()) == 6


def test_results_are_in_the_order_of_the_items_whichever_reply_comes_first(tmp_path):
    def reversed_(asked):
        time.sleep(0.1 - 0.01 * int(asked.prompt))
        return asked.prompt

    done = []
    with serving(reversed_) as server:
        judge = Judge(quick(server.url), tmp_path / "r.jsonl", threads=8)
        assert judge.each(lambda n: judge.reply(str(n), 0.0), range(8), done.append) == [str(n) for n in range(8)]
    assert sum(done) == 8


def test_a_killed_process_loses_what_was_in_flight_and_no_more(tmp_path):
    program = (
        "import pathlib, sys; from xgenmm_jax.evaluation.judge import Judge, Server\n"
        "judge = Judge(Server(sys.argv[1], 'm'), pathlib.Path(sys.argv[2]), threads=2)\n"
        "print(judge.each(lambda n: judge.reply(str(n), 0.0), range(9), lambda count: None))"
    )
    go_on, stuck = threading.Event(), threading.Semaphore(0)

    def reply(asked):
        if int(asked.prompt) >= 5 and not go_on.is_set():
            stuck.release()
            go_on.wait(20)
        return asked.prompt

    with serving(reply) as server:
        command = [sys.executable, "-c", program, server.url, str(tmp_path / "r.jsonl")]
        process = subprocess.Popen(command)
        assert all(stuck.acquire(timeout=20) for _ in range(2))
        process.kill()
        process.wait()
        go_on.set()
        asked = len(server.asked)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(one.prompt for one in server.asked[:asked]) == list("0123456")
    assert sorted(one.prompt for one in server.asked[asked:]) == list("5678")
    assert done.stdout.split() == str([str(n) for n in range(9)]).split()


def test_a_kill_costs_the_torn_line_alone(tmp_path):
    path = tmp_path / "r.jsonl"
    with serving(lambda asked: asked.prompt) as server:
        judge = Judge(quick(server.url), path)
        for item in "abc":
            judge.reply(item, 0.0)
        path.write_bytes(path.read_bytes()[:-20])
        again = Judge(quick(server.url), path)
        assert [again.reply(item, 0.0) for item in "abc"] == list("abc")
        assert [one.prompt for one in server.asked] == list("abcc")
        assert Judge(quick(server.url), path).reply("c", 0.0) == "c" and len(server.asked) == 4


def test_where_one_question_fails_the_replies_that_came_are_kept(tmp_path):
    path = tmp_path / "r.jsonl"

    def reply(asked):
        return Reply(status=400, body=b"bad") if asked.prompt == "30" else asked.prompt

    with serving(reply) as server:
        judge = Judge(quick(server.url), path, threads=2)
        with pytest.raises(JudgeError, match="status 400"):
            judge.each(lambda n: judge.reply(str(n), 0.0), range(1000), lambda count: None)
    assert 30 <= len(server.asked) < 1000
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["reply"] for line in kept} == {one.prompt for one in server.asked} - {"30"}
    with serving(lambda asked: asked.prompt) as server:
        judge = Judge(quick(server.url), path)
        items = [one["reply"] for one in kept] + ["30"]
        assert judge.each(lambda item: judge.reply(item, 0.0), items, lambda count: None) == items
    assert [one.prompt for one in server.asked] == ["30"]
