"""Raw files to clean training rows: a file becomes blocks, blocks become rows, rows are cleaned.

text_lines, html, word, pdf read a file; blocks says what they give; recognise finds rows in it;
row_files reads what holds rows already; prepare puts all of it together.
"""
