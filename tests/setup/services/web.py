"""Counts visits in the redis it is told of by name."""
import os
import socket

from flask import Flask, request

app = Flask(__name__)


def command(*words):
    """One command of redis's protocol, and its answer's first line."""
    host, port = os.environ.get("REDIS", "redis:6379").split(":")
    with socket.create_connection((host, int(port)), 5) as s:
        s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in map(str.encode, words)))
        return s.makefile().readline().strip()


@app.get("/")
def visit():
    return {"visits": int(command("INCR", "visits")[1:]), "client": request.remote_addr}


@app.get("/healthy")
def healthy():
    return "ok\n"
