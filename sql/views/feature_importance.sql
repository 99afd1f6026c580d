-- one row per (model_version, part, feature) of the trees of satisfaction: how often it splits, and what that gained
with

stored as (
    select model_version, json(decode(content)) as model
    from m6.artefacts
    where name = 'satisfaction'
),

parts as (
    select model_version, unnest(['new', 'known', 'session']) as part, model
    from stored
),

texts as (
    select model_version, part, json_extract_string(model, '$.' || part || '.text') as trees
    from parts
),

names as (
    select model_version, part, trees, string_split(regexp_extract(trees, 'feature_names=([^\n]*)', 1), ' ') as features
    from texts
    where trees <> ''
),

of_trees as (
    select
        model_version,
        part,
        features,
        unnest(regexp_extract_all(trees, 'split_feature=([^\n]*)', 1)) as places,
        unnest(regexp_extract_all(trees, 'split_gain=([^\n]*)', 1)) as gains
    from names
),

splits as (
    select
        model_version,
        part,
        features,
        unnest(string_split(places, ' ')) as place,
        unnest(string_split(gains, ' ')) as gain
    from of_trees
    where places <> ''
),

feature_importance as (
    select
        model_version,
        part,
        features[cast(place as integer) + 1] as feature,
        count(*) as splits,
        sum(cast(gain as double)) as gain
    from splits
    group by model_version, part, feature
)

select * from feature_importance
