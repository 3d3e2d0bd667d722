"""Delivery: a pure core (`quota`, `plan`, `policy`, `health`, `steady`) and a thin loop around it.

`deliver.deliver` is one delivery from the claim to the settling; `loop.Dispatcher` runs it in threads.
"""
