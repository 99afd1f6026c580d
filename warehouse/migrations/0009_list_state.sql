-- What every list depends on, in one table: a branch of the query for each of these tables cost a list more than its scores.
create view m6.list_state_now as
select
    'in_force' as name,
    cast(to_json({
        model: any_value(a.model_version),
        policy: any_value(a.policy_version),
        weights: list(
            {domain: w.domain, segment: w.segment, strategy: w.strategy, weight: w.weight}
            order by w.domain, w.segment, w.strategy
        ) filter (where w.strategy is not null)
    }) as varchar) as content
from m6.active as a
left join m6.strategy_weights as w on a.policy_version = w.policy_version
union all
select
    'strategies' as name,
    cast(to_json(coalesce(list({strategy: strategy, bit: bit, is_enabled: is_enabled} order by bit), [])) as varchar)
        as content
from m6.strategies
union all
select 'event_types' as name, cast(to_json(cast(bit_xor(hash(t)) as varchar)) as varchar) as content
from m6.event_types as t
union all
select
    'stored_histories' as name,
    cast(to_json({model: any_value(model_version), types: cast(any_value(types_hash) as varchar), made: count(*)}) as varchar)
        as content
from m6.history_marks
union all
select
    'extra_candidates' as name,
    cast(to_json(coalesce(list(distinct model_version order by model_version), [])) as varchar) as content
from m6.extra_candidates;
comment on view m6.list_state_now is 'one row per fact that every list depends on: what m6.list_state has to hold';
comment on column m6.list_state_now.name is 'in_force, strategies, event_types, stored_histories, extra_candidates';
comment on column m6.list_state_now.content is 'as JSON; null in event_types where there is none';

create table m6.list_state (name varchar primary key, content varchar not null);
comment on table m6.list_state is 'm6.list_state_now as a table, kept by triggers: read by every list';
comment on column m6.list_state.name is 'see m6.list_state_now';
comment on column m6.list_state.content is 'as JSON';

insert into m6.list_state select name, coalesce(content, 'null') from m6.list_state_now;

-- A row is touched only where it changes: two transactions that change different things do not wait for each other.
create trigger list_state_active_insert after insert on m6.active for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'in_force' and found.name = 'in_force' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_active_update after update on m6.active for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'in_force' and found.name = 'in_force' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_active_delete after delete on m6.active for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'in_force' and found.name = 'in_force' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_strategy_weights_insert after insert on m6.strategy_weights for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'in_force' and found.name = 'in_force' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_strategy_weights_update after update on m6.strategy_weights for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'in_force' and found.name = 'in_force' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_strategy_weights_delete after delete on m6.strategy_weights for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'in_force' and found.name = 'in_force' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_strategies_insert after insert on m6.strategies for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'strategies' and found.name = 'strategies' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_strategies_update after update on m6.strategies for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'strategies' and found.name = 'strategies' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_strategies_delete after delete on m6.strategies for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'strategies' and found.name = 'strategies' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_event_types_insert after insert on m6.event_types for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'event_types' and found.name = 'event_types' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_event_types_update after update on m6.event_types for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'event_types' and found.name = 'event_types' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_event_types_delete after delete on m6.event_types for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'event_types' and found.name = 'event_types' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_history_marks_insert after insert on m6.history_marks for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'stored_histories' and found.name = 'stored_histories' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_history_marks_update after update on m6.history_marks for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'stored_histories' and found.name = 'stored_histories' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_history_marks_delete after delete on m6.history_marks for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'stored_histories' and found.name = 'stored_histories' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_extra_candidates_insert after insert on m6.extra_candidates for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'extra_candidates' and found.name = 'extra_candidates' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_extra_candidates_update after update on m6.extra_candidates for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'extra_candidates' and found.name = 'extra_candidates' and kept.content is distinct from coalesce(found.content, 'null');
create trigger list_state_extra_candidates_delete after delete on m6.extra_candidates for each statement
    update m6.list_state as kept
    set content = coalesce(found.content, 'null')
    from m6.list_state_now as found
    where kept.name = 'extra_candidates' and found.name = 'extra_candidates' and kept.content is distinct from coalesce(found.content, 'null');
