"""The gateway itself: sockets, the one pipeline, state, and the operators' doors.

Begin with `pipeline.py`: the one path of a request, readable on one screen.  `app.py` is the only place
where parts meet; `ingress.py` is HTTP in and out; `attempts.py`, `session.py` and `relay.py` drive one
attempt on an engine; `recording.py` turns what happened into records; `cli.py` is the command.
"""
