"""The dashboard: pages, the fragments that keep them up to date, and thumbnails.

`routes.router` is mounted at `/` beside the API. Everything a page needs is served from here,
nothing is built, and nothing is asked of another host.
"""
