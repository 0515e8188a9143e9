"""Reports: pages on runs and studies, and tables in Markdown and LaTeX.

Everything here reads the files of finished runs and works without torch, so a report can be made again on any machine.
Only pages need a drawing library, which takes half a second to load.
"""
