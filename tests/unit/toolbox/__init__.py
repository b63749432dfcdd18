"""Tests of the toolbox."""
