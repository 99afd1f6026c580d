-- 95 % interval of a rate (Wilson 1927) over n trials whose real variance is known: n is divided by the design effect,
--   that variance over the one of independent trials, at least 1 (Kish 1965)
create or replace macro m6.wilson(rate, trials, variance) as
    case when trials > 0 then m6.wilson_bounds(
        rate,
        trials / greatest(coalesce(variance / nullif(rate * (1 - rate) / trials, 0), 1), 1)
    ) end;
comment on macro m6.wilson is '95 % interval of a rate whose trials come in clusters';
