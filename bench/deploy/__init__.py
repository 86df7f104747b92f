"""What `llamafarm convert` costs and how exact it is: measured, and written to a page.

python -m bench.deploy speed memory parity
"""
