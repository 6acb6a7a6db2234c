"""Django with django-redis: the cache, its locks, and sessions in it.

    django_cache.py HOST:PORT
"""

import sys
import time

import django
import django_redis
from django.conf import settings

settings.configure(
    CACHES={"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"redis://{sys.argv[1]}/1"}},
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    INSTALLED_APPS=["django.contrib.sessions"],
    SECRET_KEY="of a test",
)
django.setup()

from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402
from django.core.cache import cache  # noqa: E402


def check(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


def values():
    cache.clear()
    for value in ("text", 42, 1.5, None, True, {"a": [1, 2]}, b"bytes", "x" * 100_000):
        cache.set("value", value)
        check(cache.get("value"), value)
    check(cache.get("missing", "default"), "default")
    check(cache.add("value", "other"), False)
    check(cache.add("added", "new"), True)
    check(cache.get_or_set("made", lambda: "made", 60), "made")
    cache.set_many({"a": 1, "b": 2, "c": 3})
    check(dict(cache.get_many(["a", "b", "missing"])), {"a": 1, "b": 2})
    check((cache.incr("a"), cache.incr("a", 10), cache.decr("a", 2)), (2, 12, 10))
    try:
        cache.incr("missing")
    except ValueError:
        pass
    else:
        raise AssertionError("a missing number is counted up")
    cache.delete_many(["a", "b"])
    check((cache.has_key("a"), "c" in cache, cache.delete("c"), cache.delete("c")), (False, True, True, False))
    cache.set("versions", 1, version=1)
    check(cache.incr_version("versions"), 2)
    check((cache.get("versions", version=1), cache.get("versions", version=2)), (None, 1))


def expiry():
    cache.set("short", "v", timeout=0.5)
    cache.set("long", "v", timeout=100)
    cache.set("ever", "v", timeout=None)
    check((60 < cache.ttl("long") <= 100, cache.ttl("ever"), cache.ttl("missing")), (True, None, 0))
    check(cache.touch("long", 1000), True)
    check(900 < cache.ttl("long") <= 1000, True)
    check((cache.persist("long"), cache.ttl("long")), (True, None))
    check((cache.expire("long", timeout=50), 0 < cache.pttl("long") <= 50_000), (True, True))
    time.sleep(0.6)
    check(cache.get("short"), None)
    cache.set("none", "v", timeout=0)
    check(cache.get("none"), None)
    check((cache.set("nx", 1, nx=True), cache.set("nx", 2, nx=True), cache.get("nx")), (True, False, 1))


def patterns():
    cache.clear()
    cache.set_many({f"user:{n}": n for n in range(50)})
    cache.set("other", 1)
    check(sorted(cache.keys("user:1*")), sorted(["user:1"] + [f"user:{n}" for n in range(10, 20)]))
    check(len(list(cache.iter_keys("user:*", itersize=7))), 50)
    check(cache.delete_pattern("user:*"), 50)
    check(cache.keys("*"), ["other"])


def locks():
    with cache.lock("job", timeout=10):
        check(cache.lock("job", timeout=10).acquire(blocking=False), False)
    with cache.lock("job", timeout=10, blocking_timeout=1) as _:
        pass
    with django_redis.get_redis_connection("default") as raw:
        check(raw.ping(), True)
        with raw.pipeline() as pipe:
            check(pipe.set("raw", 1).incr("raw").execute(), [True, 2])


def sessions():
    session = SessionStore()
    session["user"] = {"name": "Ada"}
    session.save()
    check(SessionStore(session.session_key)["user"], {"name": "Ada"})
    check(SessionStore().exists(session.session_key), True)
    old = session.session_key
    session.cycle_key()
    check((SessionStore().exists(old), SessionStore(session.session_key)["user"]), (False, {"name": "Ada"}))
    session.flush()
    check(SessionStore().exists(session.session_key or "gone"), False)


values()
expiry()
patterns()
locks()
sessions()
print(f"django-redis {'.'.join(map(str, django_redis.VERSION))}, django {django.__version__}: ok")
