-- The number of a message is what its writer says: a forged message must not take the place of an authentic one,
-- nor may a writer that lost count. So only the same message, which is what its MAC stands for, is there once.
ALTER TABLE inbox
    DROP CONSTRAINT inbox_writer_counter_key,
    ADD CONSTRAINT inbox_message UNIQUE (writer, counter, mac);
