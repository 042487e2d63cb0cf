"""Diversion training, adaptation and evaluation of KIND models; the command line is `kind-train`."""
