"""The same engine on a clock that is faster than time: scenarios, replays and their world."""
