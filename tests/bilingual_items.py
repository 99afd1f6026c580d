"""Forty things, each with a title and a question in English and in Chinese: written for the tests, a small sample.

No question repeats a word of its title in the other language; a question in the same language may share some.
"""

from __future__ import annotations

# (title in English, title in Chinese, question in English, question in Chinese)
THINGS: tuple[tuple[str, str, str, str], ...] = (
    ("Quiet piano jazz album", "安静的钢琴爵士乐专辑", "calm music for late evenings", "适合深夜听的轻柔音乐"),
    ("Trail running shoes", "越野跑步鞋", "footwear for jogging in the mountains", "在山里跑步穿的鞋子"),
    ("Stainless steel water bottle", "不锈钢保温水壶", "something to keep my drink hot", "能让饮料保温的容器"),
    ("Beginner's guide to chess", "国际象棋入门指南", "book to learn a board game of strategy", "学习下棋的书"),
    ("Green jasmine tea", "茉莉花绿茶", "fragrant hot drink from leaves", "清香的热饮茶叶"),
    (
        "Wireless noise-cancelling headphones",
        "无线降噪耳机",
        "listen to music without hearing the train",
        "坐火车时隔绝噪音听歌",
    ),
    ("Red silk evening dress", "红色丝绸晚礼服", "elegant clothes for a formal party", "正式宴会穿的优雅衣服"),
    (
        "Space opera science fiction novel",
        "太空歌剧科幻小说",
        "story about starships and planets",
        "关于星际飞船的故事",
    ),
    ("Cast iron frying pan", "铸铁煎锅", "cookware to sear a steak", "煎牛排的厨具"),
    ("Baby stroller", "婴儿推车", "take a newborn for a walk", "带宝宝出门散步"),
    ("Mountain bicycle", "山地自行车", "two wheels for forest paths", "在林间小路骑行"),
    ("Vegetarian cookbook", "素食菜谱", "recipes without meat", "不含肉的做菜方法"),
    ("Electric toothbrush", "电动牙刷", "clean my teeth better", "更好地清洁牙齿"),
    ("Documentary about whales", "关于鲸鱼的纪录片", "film on giant animals of the ocean", "介绍海洋巨型动物的影片"),
    ("Gaming laptop computer", "游戏笔记本电脑", "portable machine to play video games", "可以玩电子游戏的便携机器"),
    ("Wool winter scarf", "羊毛冬季围巾", "keep my neck warm in the snow", "下雪天给脖子保暖"),
    ("Camping tent for four", "四人露营帐篷", "sleep outdoors with the family", "全家在野外过夜"),
    ("Romantic comedy film", "浪漫喜剧电影", "funny movie about falling in love", "讲恋爱的搞笑影片"),
    ("Dog food with chicken", "鸡肉狗粮", "meal for my puppy", "给小狗吃的东西"),
    ("Cat litter", "猫砂", "toilet for my kitten", "小猫上厕所用的"),
    ("Acoustic guitar", "民谣吉他", "instrument with strings to play songs", "弹唱用的弦乐器"),
    ("History of the Roman Empire", "罗马帝国史", "book on emperors of antiquity", "讲古代皇帝的书"),
    ("Sunscreen lotion", "防晒霜", "protect my skin at the beach", "在海边保护皮肤"),
    ("Wooden dining table", "实木餐桌", "furniture where the family eats", "一家人吃饭的家具"),
    ("LED desk lamp", "护眼台灯", "light for reading at night", "晚上看书用的灯光"),
    ("Yoga mat", "瑜伽垫", "stretching exercises on the floor", "在地上做伸展运动"),
    ("Spicy Sichuan hotpot base", "四川麻辣火锅底料", "hot and numbing soup for dinner", "辣味聚餐汤底"),
    ("Dark chocolate bar", "黑巧克力", "bitter sweet made of cocoa", "可可做的微苦甜食"),
    ("Digital camera", "数码相机", "take photographs on holiday", "旅行时拍照"),
    ("Umbrella", "雨伞", "stay dry when it rains", "下雨天不被淋湿"),
    ("Horror film about ghosts", "鬼怪恐怖片", "scary movie with spirits", "吓人的灵异影片"),
    ("Football", "足球", "ball to kick with friends", "和朋友一起踢的球"),
    ("Swimming goggles", "游泳镜", "see under water in the pool", "在泳池里看清水下"),
    ("Garden shears", "园艺剪刀", "cut the hedge and roses", "修剪花草的工具"),
    ("Children's picture book about bears", "小熊儿童绘本", "bedtime story for a toddler", "哄幼儿睡觉的故事"),
    ("Coffee machine", "咖啡机", "make espresso at home", "在家做浓缩饮品"),
    ("Suitcase with wheels", "带轮行李箱", "luggage for a flight", "坐飞机带的行李"),
    ("Vacuum cleaner robot", "扫地机器人", "cleans the floor by itself", "自动清洁地板"),
    ("Classical violin concerto", "古典小提琴协奏曲", "orchestra music by Mozart or Beethoven", "莫扎特贝多芬的管弦乐"),
    ("Snowboard", "单板滑雪板", "winter sport down the slope", "冬天从雪坡滑下的运动"),
)


def catalogue(language: str) -> list[tuple[str, str]]:
    """(item_id, title) in "en", "zh" or "mixed": even numbers in English, odd ones in Chinese."""
    column = {"en": lambda n: 0, "zh": lambda n: 1, "mixed": lambda n: n % 2}[language]
    return [(f"t{n:02d}", thing[column(n)]) for n, thing in enumerate(THINGS)]


def questions(language: str) -> list[tuple[str, str]]:
    """(item_id that is asked for, question) in "en", "zh", or "other": the language that "mixed" does not use there."""
    column = {"en": lambda n: 2, "zh": lambda n: 3, "other": lambda n: 3 - n % 2}[language]
    return [(f"t{n:02d}", thing[column(n)]) for n, thing in enumerate(THINGS)]
