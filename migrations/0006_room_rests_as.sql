-- What was so of a room when a process of the worker ended in order and had nothing to do there: the next one need not look
-- at it at once where that is still so. Nobody knows of rooms that were noted before.
ALTER TABLE room ADD COLUMN rests_as bigint;
