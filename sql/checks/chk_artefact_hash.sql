-- one row per artefact of the build in force whose bytes do not match their hash
-- remedy (fail): restore the file from a copy, or run `m6rec build`
with

active as (select model_version from m6.active),

artefacts as (
    select artefacts.name, artefacts.content_hash, sha256(artefacts.content) as found_hash
    from m6.artefacts as artefacts
    inner join active on artefacts.model_version = active.model_version
),

wrong as (select * from artefacts where content_hash is distinct from found_hash)

select * from wrong
order by name
