"""A race that cannot fool you: contestants in processes of their own, and an honest verdict."""
