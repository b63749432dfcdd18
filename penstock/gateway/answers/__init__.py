"""Answers: a completed stream as one JSON body, for requests that do not stream. Pure; one protocol a module."""
