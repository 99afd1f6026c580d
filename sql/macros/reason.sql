-- why a line is in a list, in words
create or replace macro m6.reason(of_strategy, of_item, of_title) as
    case
        when of_strategy = 'seen' then 'you know this one; nothing new is left'
        when of_item is not null then 'because of "' || coalesce(of_title, of_item) || '" in your history'
        when of_strategy in ('fresh', 'new') then 'new in the catalogue'
        when of_strategy = 'popular' then 'liked by many'
        else 'popular lately'
    end;
comment on macro m6.reason is 'Why a line is in a list, in words: its strategy and the history item that speaks for it';
