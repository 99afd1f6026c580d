"""The inner loops of a list, compiled: arrays in, arrays out, one user after the other, without the interpreter's lock.

A block of users is a loop over users, so one user alone and the same user in a block are answered by the same
instructions. What a strategy, a feature or a slot is, is said by the modules that call: ``candidates``, ``ranking``,
``slate``, ``explain``.
"""
