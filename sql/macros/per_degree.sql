-- n / (n - 1), the correction of a variance over n users; NULL for one user, whose spread nobody knows
create or replace macro m6.per_degree(clusters) as clusters / nullif(clusters - 1.0, 0);
comment on macro m6.per_degree is 'n / (n - 1), NULL for one';
