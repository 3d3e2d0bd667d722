"""Stand-ins for the destinations, to develop, test and demonstrate against.

`compass` is what Compass does with a request, `release` what an UrbanCode Release server does with its calendar,
`faults` what goes wrong on purpose; `web` and `release_web` are the same over HTTP, and `server` runs it all: in a
thread of this process, or in the foreground.
"""
