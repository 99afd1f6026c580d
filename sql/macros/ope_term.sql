-- one round's contribution to an off-policy estimator; the estimate is the mean over the rounds
-- ratio: target / logged probability; predicted: reward model at the action shown; expected: its mean under the target
create or replace macro m6.ope_term(estimator_name, tuning, ratio, observed, predicted, expected, mean_ratio) as
    case estimator_name
        when 'ips' then ratio * observed
        when 'snips' then ratio * observed / mean_ratio
        when 'ips_clip' then least(ratio, tuning) * observed
        when 'sgips' then ratio / (1 - tuning + tuning * ratio) * observed
        when 'dm' then expected
        when 'dr' then expected + ratio * (observed - predicted)
        when 'sndr' then expected + ratio * (observed - predicted) / mean_ratio
        when 'dr_clip' then expected + least(ratio, tuning) * (observed - predicted)
        when 'switch_dr' then expected + case when ratio <= tuning then ratio * (observed - predicted) else 0.0 end
        when 'dros' then expected + tuning * ratio / (ratio * ratio + tuning) * (observed - predicted)
        when 'sgdr' then expected + ratio / (1 - tuning + tuning * ratio) * (observed - predicted)
    end;
comment on macro m6.ope_term is 'contribution of one logged round to an off-policy estimator (ips, snips, dr, ...)';
