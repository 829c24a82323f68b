"""The HTTP API over the producer: submit, poll, stream, control.

    millrace serve

`app.create_app` puts it together; each other module is one part of it, named by what it does.
Needs the extra `millrace[http]`, of which nothing is imported by importing the package.
"""
