"""Reports: pages on runs, and what pages on studies share with them: curves, text and templates.

Everything here reads the files of finished runs and works without torch, so a report can be made again on any machine.
Only pages need a drawing library, which takes half a second to load.
"""
