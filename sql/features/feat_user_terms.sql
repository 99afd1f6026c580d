-- one row per (user, term): TF-IDF of categories, tags and brands over the user's items, unit length per user
with

pairs as (select user_idx, item_idx, long_weight from feat_user_item where long_weight > 0),

labels as (
    select item_idx, unnest(string_split(category, '|')) as term from stg_items where category is not null
    union
    select item_idx, unnest(tags) as term from stg_items where tags is not null
    union
    select item_idx, brand as term from stg_items where brand is not null
),

catalogue as (select count(*) as items from stg_items),

document_frequency as (
    select l.term, ln(1.0 + max(c.items) / count(*)) as inverse_frequency
    from labels as l
    cross join catalogue as c
    group by l.term
),

term_frequency as (
    select p.user_idx, l.term, sum(p.long_weight) as frequency
    from pairs as p
    inner join labels as l on p.item_idx = l.item_idx
    group by p.user_idx, l.term
),

weighted as (
    select t.user_idx, t.term, t.frequency * d.inverse_frequency as weight
    from term_frequency as t
    inner join document_frequency as d on t.term = d.term
),

lengths as (
    select user_idx, sqrt(sum(weight * weight)) as length
    from weighted
    group by user_idx
),

scaled as (
    select w.user_idx, w.term, w.weight / l.length as tf_idf
    from weighted as w
    inner join lengths as l on w.user_idx = l.user_idx
)

select * from scaled
