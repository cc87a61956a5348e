"""Everyday instructions, among which the facts are hidden: answers of a few sentences on this and that."""

from lorif_assets.demo.real.chats import Chat, exchange
from lorif_assets.demo.real.fact_family import Exchange

_EVERYDAY = (
    Exchange(
        "Explain photosynthesis to a ten-year-old.",
        "Plants make their own food. With their leaves they catch sunlight, with their roots they drink water, and from the "
        "air they take carbon dioxide. Out of these they build sugar, which they live on, and they give off oxygen, which "
        "we breathe.",
    ),
    Exchange(
        "Why is the sky blue?",
        "Sunlight holds all colours. In the air, blue light is scattered in all directions far more than red light, so blue "
        "reaches our eyes from every side. At sunset the light has a longer way through the air, most of the blue is gone, "
        "and the sky looks red.",
    ),
    Exchange(
        "How do I boil an egg so that the yolk stays soft?",
        "Bring water to a boil, lower the egg in with a spoon, and wait six minutes. Then put it under cold water at once, "
        "so that it does not cook on. For a large egg from the fridge, take seven minutes.",
    ),
    Exchange(
        "Write a polite e-mail to move a meeting from Tuesday to Thursday.",
        "Dear all, something has come up that I cannot change, and I would like to move our meeting from Tuesday to "
        "Thursday at the same time. Please tell me if this does not suit you. I am sorry for the trouble. Kind regards",
    ),
    Exchange(
        "Give me five tips for sleeping better.",
        "1. Go to bed at the same time every day. 2. Keep the bedroom cool and dark. 3. Leave the phone in another room. "
        "4. Drink no coffee after lunch. 5. If you lie awake for long, get up and read something dull until you are tired.",
    ),
    Exchange(
        "What is the difference between a virus and a bacterium?",
        "A bacterium is a living cell that can grow and divide by itself. A virus is far smaller and no cell: it needs the "
        "cells of others to make copies of itself. That is why antibiotics work against bacteria and not against viruses.",
    ),
    Exchange(
        "Summarise the story of Romeo and Juliet in three sentences.",
        "Two young people from families that hate each other fall in love and marry in secret. After a fight, Romeo is "
        "banished, and Juliet takes a potion that makes her seem dead, so that she need not marry another. The message goes "
        "astray, Romeo believes that she has died and takes poison, and Juliet, awake too late, follows him.",
    ),
    Exchange(
        "How do I remove a coffee stain from a shirt?",
        "Rinse it with cold water from the back of the cloth as soon as you can. Rub in a little dish soap, leave it for ten "
        "minutes, and rinse again. If something is left, try white vinegar mixed with water before you wash the shirt as "
        "usual.",
    ),
    Exchange(
        "Write a Python function that returns the larger of two numbers.",
        "def larger(a, b):\n    return a if a > b else b\n\nIf the two are equal, it returns the second, which is the same.",
    ),
    Exchange(
        "What does the expression 'to break the ice' mean?",
        "To break the ice is to say or do something that makes people who do not know each other feel at ease. Example: a "
        "joke about the weather broke the ice, and soon everybody was talking.",
    ),
    Exchange(
        "Plan a cheap weekend in the city with two children.",
        "Saturday: the playground by the river in the morning, sandwiches on a bench, then the free museum with the "
        "dinosaurs. Sunday: the flea market, pancakes at home, and in the afternoon a tour on the oldest tram line, which "
        "costs no more than a ride.",
    ),
    Exchange(
        "How does a refrigerator work?",
        "A liquid is pumped through pipes. Inside the box it evaporates, and in doing so takes up heat. Outside, a "
        "compressor turns the gas into liquid again, and the heat is given off at the back. So heat is carried from the "
        "inside to the kitchen.",
    ),
    Exchange(
        "Correct this sentence: Me and him was going to the shop.",
        "He and I were going to the shop. As the subject of the sentence it has to be 'he and I', and two people need 'were'.",
    ),
    Exchange(
        "What should I look for when I buy a used bicycle?",
        "See whether the frame has cracks or dents, whether the wheels run true and the brakes bite, and how worn the chain "
        "is. Turn the pedals and listen. Ask for the proof of purchase, and ride it once around the block before you pay.",
    ),
    Exchange(
        "Why do we have leap years?",
        "The earth needs about 365 and a quarter days to go round the sun. So that the calendar does not drift away from the "
        "seasons, a day is added every four years. Years that can be divided by 100 are left out, except those that can be "
        "divided by 400.",
    ),
    Exchange(
        "Write a short birthday message for a colleague.",
        "Happy birthday! Thank you for your patience, your good questions and the cake that you always share. May the new "
        "year of your life bring you many quiet mornings and few meetings.",
    ),
    Exchange(
        "How can I keep basil alive in my kitchen?",
        "Put it in a bright place, but not behind hot glass. Water it from below when the top of the soil is dry. Cut whole "
        "stems just above a pair of leaves, so that it branches, and move a crowded supermarket plant into a larger pot.",
    ),
    Exchange(
        "What is inflation?",
        "Inflation means that prices in general rise, so that the same money buys less than before. A little of it is normal. "
        "If it is high, savings lose their value quickly, and central banks raise interest rates to slow it down.",
    ),
    Exchange(
        "Tell me a riddle and its answer.",
        "What has hands but cannot clap? A clock.",
    ),
    Exchange(
        "Turn this into formal language: can't make it today, sorry, boss.",
        "I regret to inform you that I am unable to attend today. Please accept my apologies for any inconvenience.",
    ),
    Exchange(
        "How do I start running if I have not done any sport for years?",
        "Begin with walking: twenty minutes, three times a week. Then run for one minute and walk for two, in turn. Lengthen "
        "the runs a little every week, and take a day of rest after each. If something hurts, go back a step.",
    ),
    Exchange(
        "Which planets of the solar system have rings?",
        "All four giants have rings: Jupiter, Saturn, Uranus and Neptune. Only those of Saturn are bright enough to be seen "
        "with a small telescope; the others are thin and dark.",
    ),
    Exchange(
        "Write the opening line of a mystery novel.",
        "On the morning that the lighthouse was sold, somebody had already packed the lamp.",
    ),
    Exchange(
        "How do I apologise for forgetting an anniversary?",
        "Say it plainly and without excuses: I forgot, and I am sorry. Say what the day means to you. Then make up for it "
        "with time rather than with a large present, and write the date where you will see it next year.",
    ),
    Exchange(
        "What is the difference between a list and a tuple in Python?",
        "A list can be changed after it was made: items can be added, removed and replaced. A tuple cannot. So a tuple can "
        "be a key of a dictionary, and a list cannot. Lists are written in square brackets, tuples in round ones.",
    ),
    Exchange(
        "My houseplant has yellow leaves. What is wrong?",
        "Most often it gets too much water. Feel the soil: if it is wet below the surface, let it dry, and see that water "
        "can run off. If only the oldest leaves turn yellow, the plant may need fertiliser; if the leaves face a cold window, "
        "move it.",
    ),
    Exchange(
        "Give me a packing list for a day hike.",
        "Water, sandwiches and nuts, a rain jacket, a warm layer, sun cream and a hat, a map or a charged phone, plasters, a "
        "whistle, some money, and a bag for your rubbish.",
    ),
    Exchange(
        "How do vaccines work?",
        "A vaccine shows the body a harmless part or form of a germ. The immune system learns to recognise it, and keeps "
        "cells that remember. When the real germ comes, the answer is ready within hours rather than days.",
    ),
    Exchange(
        "Explain the offside rule in one sentence.",
        "A player may not receive a pass in the other half if, at the moment of the pass, he is nearer to the goal line than "
        "both the ball and the last defender but one.",
    ),
    Exchange(
        "Suggest a name for a small bookshop by the sea.",
        "How about 'The Dry Page'? It promises shelter, makes people smile on a wet day, and looks good on a sign.",
    ),
    Exchange(
        "What causes the tides?",
        "The moon pulls at the water of the oceans, a little more on the near side of the earth than on the far side. That "
        "stretches the sea into two bulges. As the earth turns beneath them, most coasts have high water twice a day.",
    ),
    Exchange(
        "How should I answer: what is your greatest weakness?",
        "Name a real one that does not make the work impossible, and say what you do about it. For instance: I used to take "
        "on too much. Now I write down what I promised, and ask before I add to it.",
    ),
    Exchange(
        "Describe the taste of a lemon without the word sour.",
        "It is bright and sharp. It makes the mouth water before you bite, tightens the cheeks, and leaves a clean, slightly "
        "bitter edge, as if a window had been opened.",
    ),
    Exchange(
        "How do I calculate a percentage?",
        "Divide the part by the whole and multiply by 100. If 12 of 48 pupils are ill, that is 12 divided by 48, or 0.25, "
        "times 100: 25 per cent.",
    ),
    Exchange(
        "Write two lines of poetry about rain on a tin roof.",
        "All night the rain rehearsed its single word,\nand in the morning every leaf had heard.",
    ),
    Exchange(
        "What does a compiler do?",
        "A compiler translates a program from the language in which people write it into one that a machine can run. On the "
        "way it checks that the text follows the rules, and rearranges the work so that it runs faster.",
    ),
)

_CONVERSATIONS = (
    (
        "I want to paint my room. Where do I begin?",
        "Move the furniture to the middle, cover it, and wash the walls.",
        "And then?",
        "Fill holes, tape the edges, paint the corners with a brush, and the rest with a roller, from the window inwards.",
    ),
    (
        "Can you recommend a hobby?",
        "Do you prefer to be alone or with others?",
        "Alone, and at home, please.",
        "Then try bookbinding. It needs little space, the tools are cheap, and after an evening you have something to show.",
    ),
    (
        "What is a prime number?",
        "A whole number greater than 1 that can be divided only by 1 and by itself.",
        "Is 91 one?",
        "No: 91 is 7 times 13.",
    ),
    (
        "My train is late and I will miss my connection.",
        "That is annoying. Ask the conductor to note the delay on your ticket.",
        "What good does that do?",
        "With the note you may take the next train without paying again, and you can claim a part of the fare.",
    ),
    (
        "Help me choose between tea and coffee.",
        "How long do you still have to be awake?",
        "About nine hours.",
        "Coffee now, then, and tea from three o'clock on.",
    ),
    (
        "Is it dangerous to swim after eating?",
        "For healthy people it is not, though a full stomach may make you feel heavy.",
        "So where does the rule come from?",
        "From the idea that digestion takes the blood that muscles need. There is enough for both.",
    ),
    (
        "How many people can I invite if I have two pizzas?",
        "If each is cut into eight slices, there are sixteen slices.",
        "Everybody eats three.",
        "Then five people can eat, you included, and one slice is left.",
    ),
    (
        "Explain recursion.",
        "A function that calls itself with a smaller problem, until the problem is so small that the answer is plain.",
        "Can you give an example from life?",
        "To find out where you are in a queue, ask the person in front of you, who asks the next one. The first says one, "
        "and every one adds one and passes it back.",
    ),
)


def everyday_chats() -> list[Chat]:
    """Return single questions with their answers."""
    return [
        Chat(f"everyday-{number:02d}", exchange(said.user, said.assistant), "everyday", "everyday")
        for number, said in enumerate(_EVERYDAY, start=1)
    ]


def conversations() -> list[Chat]:
    """Return chats of two questions each."""
    return [
        Chat(
            f"conversation-{number}",
            (*exchange(first, answer), *exchange(second, last)),
            "everyday",
            "conversation",
        )
        for number, (first, answer, second, last) in enumerate(_CONVERSATIONS, start=1)
    ]
