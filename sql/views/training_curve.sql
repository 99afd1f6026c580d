-- one row per (model_version, part, trees): cross-entropy on the later slice while the satisfaction model was learned
with

stored as (
    select model_version, json(decode(content)) as model
    from m6.artefacts
    where name = 'satisfaction'
),

parts as (
    select model_version, unnest(['new', 'known', 'stranger', 'new_domain', 'session']) as part, model
    from stored
),

curves as (
    select model_version, part, cast(json_extract(model, '$.' || part || '.curve') as double[]) as curve
    from parts
),

training_curve as (
    select
        model_version,
        part,
        unnest(range(1, len(curve) + 1)) as trees,
        unnest(curve) as cross_entropy
    from curves
)

select * from training_curve
