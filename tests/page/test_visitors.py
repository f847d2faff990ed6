"""Visitors, their pages, and wrong passwords."""

import pytest

from pix2seqd.page import visitors as module
from pix2seqd.page.visitors import Tries, Visitors, is_local


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_visitors_are_known_by_their_own_cookie_only():
    visitors, others = (Visitors(1, lambda _: False, lambda _: None) for _ in range(2))
    visitor, cookie = visitors.new()
    pair = cookie.partition(";")[0]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert visitors.of(f"a=b; {pair}; c=d") == visitors.of(pair) == visitor
    assert others.of(pair) is None and visitors.new()[0] != visitor
    for bad in ("", f"x{pair}", pair[:-1], f"{pair}x", f"{visitors.cookie}=; a", f"{visitors.cookie}={'é' * 43}"):
        assert visitors.of(bad) is None


def test_visitors_enter_forgets_the_oldest_page_without_work(clock):
    busy, forgotten = {"a", "b"}, []
    visitors = Visitors(3, busy.__contains__, forgotten.append)
    assert all(visitors.enter(page, "me") for page in "abcd")
    assert forgotten == ["c"] and visitors.is_of_another("d", "you") and not visitors.is_of_another("c", "you")
    busy.add("d")
    assert not visitors.enter("e", "me") and visitors.enter("a", "me")
    clock[0] += module.IDLE + 1
    assert visitors.enter("a", "me") and visitors.enter("e", "me") and forgotten == ["c", "b"]


def test_tries_wait_longer_after_each_wrong_password(clock):
    tries, waits = Tries(), []
    for _ in range(12):
        while wait := tries.begin("10.0.0.1"):
            waits.append(wait)
            clock[0] += wait
        clock[0] += 3
    assert waits == sorted(waits) and waits[-1] <= module.LONGEST_WAIT and sum(waits) > 400
    tries.succeeded("10.0.0.1")
    assert tries.begin("10.0.0.1") == 0


def test_tries_are_limited_for_all_clients_together(clock):
    tries = Tries()
    assert [tries.begin(f"10.0.{k}.1") for k in range(module.TRIES_A_MINUTE)] == [0] * module.TRIES_A_MINUTE
    assert 0 < tries.begin("10.9.9.9") <= 60
    clock[0] += 61
    assert tries.begin("10.9.9.9") == 0


def test_tries_remember_a_limited_number_of_clients_and_whole_ipv6_networks(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_CLIENTS", 5)
    tries = Tries()
    for k in range(40):
        clock[0] += 61
        tries.begin(f"10.0.0.{k}")
    assert len(tries._failed) == 5
    for k in range(module.FREE_TRIES):
        assert tries.begin(f"2001:db8::{k}") == 0
    assert tries.begin("2001:db8::ffff") > 0 and tries.begin("2001:db8:1::1") == 0


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "not 0.0.0.0", "not ::", "not 10.0.0.1", "not lab.example"]
)
def test_is_local(host):
    assert is_local(host.removeprefix("not ")) is not host.startswith("not ")
