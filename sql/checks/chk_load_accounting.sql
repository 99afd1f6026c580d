-- one row per loaded batch whose rows do not add up: given = loaded + rejected + already there
-- remedy (fail): report it with the batch; load the batch into a new file and compare
with

batches as (select batch_id, table_name, given, loaded, rejected, already_there from m6.load_batches),

wrong as (select * from batches where given <> loaded + rejected + already_there)

select * from wrong
order by batch_id
