-- behaviour of a group as the list the Python core reads: structs in the order of time
create or replace macro m6.history_list(of_item, with_interest, with_satisfaction, at_moment) as
    list(
        struct_pack(
            item_id := of_item,
            interest := cast(with_interest as float),
            satisfaction := cast(with_satisfaction as float),
            happened_at := epoch(at_moment)
        )
        order by at_moment, of_item, with_interest, with_satisfaction
    );
comment on macro m6.history_list is 'behaviour of a group as a list of structs by time, what m6.user_history and the stored histories hold';
