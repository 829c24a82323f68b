"""What breaks between millrace and its services: proxies and servers that fail on command."""
