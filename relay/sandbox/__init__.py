"""Stand-ins for the destinations, to develop, test and demonstrate against.

`compass` is what Compass does with a request, `faults` what goes wrong on purpose, `web` both over HTTP, and
`server` runs it: in a thread of this process, or in the foreground.
"""
