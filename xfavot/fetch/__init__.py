"""Files from the web: fetched with resume and checks, archives unpacked without trust."""
