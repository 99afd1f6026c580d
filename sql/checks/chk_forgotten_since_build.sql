-- one row per person forgotten after the build in force: the trained model and its arrays still hold their influence
-- remedy (warn): run `m6rec build`: it learns afresh; then delete the older versions from m6.artefact_names
with

built as (
    select models.created_at
    from m6.active as active
    inner join m6.models as models on active.model_version = models.model_version
),

forgotten as (
    select audit.done_at
    from m6.audit as audit
    inner join built on audit.done_at >= built.created_at
    where audit.action = 'forget_user'
)

select * from forgotten
order by done_at
