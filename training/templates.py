# ruff: noqa: E501 - one template or list a line
"""Sentences of care, offices, chat and schoolbooks, with slots: `{NAME}`, `{FACILITY}`, `{TOWN}`, `{ADDRESS}` are labelled.

A slot in small letters is filled from `WORDS` or from a template of that group, and carries no label of its own.
"""

from __future__ import annotations

WORDS: dict[str, str] = {
    "condition": "hypertension|type 2 diabetes|T2DM|atrial fibrillation|COPD|asthma|breast cancer|stage III colon cancer|stage IV lung cancer|migraine|chronic migraines|epilepsy|major depressive disorder|anxiety|"
    "rheumatoid arthritis|osteoporosis|heart failure|CHF|CKD stage 3|pneumonia|sepsis|a stroke|DVT|pulmonary embolism|GERD|BPH|gestational diabetes|hypothyroidism|lupus|Crohn's disease|ulcerative colitis|psoriasis|"
    "Parkinson's disease|Alzheimer's disease|Alzheimer's|Hodgkin's lymphoma|multiple sclerosis|MS|ALS|Guillain-Barre syndrome|Lyme disease|Cushing's syndrome|Addison's disease|Graves' disease|Hashimoto's thyroiditis|"
    "Huntington's disease|Raynaud's phenomenon|Sjogren's syndrome|Bell's palsy|Barrett's esophagus|Marfan syndrome|Down syndrome|Kawasaki disease|Wilson's disease|Paget's disease|Meniere's disease|Tourette syndrome|"
    "Wolff-Parkinson-White syndrome|liver cirrhosis|HIV|hepatitis C|iron deficiency anemia|acute pancreatitis|gout|bipolar disorder|schizophrenia|ADHD|a hip fracture|a knee replacement|sickle cell disease|glaucoma|prostate cancer|melanoma|ovarian cancer|bipolar depression|post-op infection|PTSD|obesity",
    "drug": "metformin|lisinopril|atorvastatin|warfarin|apixaban|amlodipine|losartan|metoprolol|insulin glargine|prednisone|methotrexate|adalimumab|Humira|Lipitor|Eliquis|Ozempic|sertraline|fluoxetine|duloxetine|gabapentin|levothyroxine|omeprazole|albuterol|furosemide|spironolactone|amiodarone|rituximab|pembrolizumab|Keytruda|clopidogrel|Plavix|Xarelto|Zoloft|tramadol|oxycodone|Tylenol|ibuprofen|Synthroid|Lantus|Jardiance|Entresto|aspirin",
    "test": "MRI|CT scan|ECG|EEG|echocardiogram|HbA1c|INR|eGFR|CBC|chest X-ray|colonoscopy|biopsy|PSA|D-dimer|troponin|lumbar puncture|Babinski sign|Chaddock reflex|Hoffmann sign|Romberg test|Framingham risk score|Wells score|APGAR score|Glasgow Coma Scale|Ranson criteria|Child-Pugh score|Murphy's sign|CHA2DS2-VASc score|Apley test|Lachman test|Mini-Mental State Examination|Allen test|Phalen's sign|Tinel sign|Hawkins test|Moro reflex|Ishihara test|Snellen chart|Kernig's sign|Brudzinski's sign|Beck Depression Inventory|Gleason score|Homans sign",
    "lab": "HbA1c of 8.2 %|creatinine of 3.5 mg/dL|an eGFR of 45|LDL of 160|an INR of 3.1|BP 150/95|an ESR of 30 mm/hr|hemoglobin 9.1 g/dL|a BMI of 34|elevated troponin|positive D-dimer|a WBC of 14,000|bilirubin of 8|a TSH of 12",
    "sex": "male|female|man|woman|M|F|patient|pt|pregnant female|African American male|Asian woman|Hispanic male|boy|girl|elderly woman|Caucasian female",
    "ask": "What are the latest treatment options for|Updated treatment protocols for|Guidelines for managing|Management of|Best practices for|What is the prognosis for|Recommendations for|Differential diagnosis for|Side effects of|Follow-up plan for|Contraindications in|mgmt of|Latest recs for|Suggest a diet plan for|Can you summarize the evidence for|Is surgery indicated in|How should we treat|Risk factors for|Please review|need advice on|Optimal anticoagulation in|Post-op care protocol for|Approach to|Is it safe to use beta blockers in|Screening recommendations for|Write a referral for|Draft a discharge summary for|Rehabilitation options for|Early signs of deterioration in|Protocol for|Advice for",
    "seen": "seen at|treated at|admitted to|evaluated at|followed at|presented at|operated on at|referred from|transferred to|hospitalized at|who visited|last visit at|was seen at|discharged from|currently at|under care at|an inpatient at|receiving care at|diagnosed at|consulted at|undergoing treatment at|who was admitted to|presenting to|from|whose case was discussed at|monitored at|recently seen at|checked in at|brought to|works at|had surgery at|attended|who went to|registered with",
    "lives": "from|living in|who lives in|residing in|resident of|based in|a resident of|who resides in|born in|who recently moved to|traveling from|who works in",
    "month": "January|February|March|April|May|June|July|August|September|October|November|December|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Oct|Nov|Dec",
    "role": "Dr.|Dr|Dr.|Dr.|Nurse|Prof.|Professor|MD|doctor|Doctor|Mr.|Mrs.|Ms.|Miss|Mr|Mrs|Ms|surgeon|therapist|her husband|his wife|her daughter|his son|the patient|my brother|my friend|my sister|our colleague|mom|aunt|uncle|Sir|Rev.|Father|Captain|Officer|Sgt.",
    "relation": "wife|husband|mother|father|son|daughter|sister|brother|partner|friend|colleague|boss|neighbor|emergency contact|next of kin|caregiver|guardian|cousin",
    "org": "Acme Corp|Globex Ltd|Initech Inc.|Blue Cross Blue Shield|Aetna|Cigna|UnitedHealthcare|Humana|Medicare|FDA|CDC|WHO|NIH|NHS|American Heart Association|the Senate|Google|Microsoft|Toyota|Red Cross|ACC|AHA|European Medicines Agency|National Institutes of Health|the United Nations|Real Madrid|Sony|OpenAI|Ministry of Health|Walmart|Nike|Pfizer|Novartis|Roche|Bayer",
    "thing": "apples|marbles|stickers|books|cookies|pencils|pizzas|eggs|roses|toy cars|cards|balloons|cupcakes|tickets|shells|coins|shirts|pages|miles|dollars",
    "greeting": "Dear|Hi|Hello|Hey|Good morning|Good afternoon|To|Cher|Liebe|Lieber|Estimado|Sehr geehrter Herr|Sehr geehrte Frau|Dear Mr.|Dear Mrs.|Dear Ms.|Dear Dr.|Attn:|cc:|Thanks|Thank you",
    "closing": "Sincerely,|Best regards,|Kind regards,|Best,|Thanks,|Regards,|Cheers,|Yours truly,|Mit freundlichen Grüßen,|Cordialement,|Saludos,|Respectfully,|Signed,|Electronically signed by|Yours sincerely,|Warmly,",
    "label": "Patient|Patient Name|Name|Pt|Pt name|patient name|Full Name|Client|Insured|Subscriber|Member|Policyholder|Contact|Applicant|Attending|Provider|Referring physician|PCP|Surgeon|Next of kin|Emergency contact|Signed|Author|From|To|Customer|Guarantor|Mother's name|Employee|Patient's name|Physician|Nurse|Cardholder|Beneficiary|Nombre|Name des Patienten|Nom|Paciente|Nome|Apellidos|Médico|Sender|Recipient|First name|Last name|name on the account|Account holder|Dictated by|Reviewed by|Examiner",
    "flabel": "Facility|Hospital|Clinic|Site|Location|Facility name|Referring facility|Admitted to|Practice|Treating hospital|Place of service|Centro|Hospital name|Department|Admitting facility|Institution",
    "tlabel": "City|Town|Place of birth|Hometown|Location|City of residence|Ciudad|Localidad|Ort|Birthplace|Place",
    "alabel": "Address|Home address|Mailing address|Street address|Billing address|Addr|Domicilio|Adresse|Shipping address|Residence|Anschrift|Street",
    "study": "retrospectively reviewed|enrolled|randomly assigned|included in the study|followed for five years|interviewed|recruited|analysed|screened for inclusion",
    "stat": "Kaplan-Meier curves|the Mann-Whitney U test|Cox regression|Student's t-test|Fisher's exact test|Pearson correlation|the Kruskal-Wallis test|Bland-Altman plots|Spearman's rho|the Wilcoxon signed-rank test|Bonferroni correction|Cronbach's alpha|Cohen's kappa|the Hosmer-Lemeshow test|Bayesian models|Poisson regression|Shapiro-Wilk tests|Gaussian mixtures|Likert scales|Monte Carlo simulation|Markov chains|Tukey's test|Egger's test",
    "germ": "Helicobacter pylori|Escherichia coli|Staphylococcus aureus|Candida albicans|Plasmodium falciparum|Clostridium difficile|Mycobacterium tuberculosis|Pseudomonas aeruginosa|Borrelia burgdorferi|Epstein-Barr virus|Coxsackie virus|Salmonella Typhi|Zika virus|Ebola|Toxoplasma gondii",
    "topic": "the Pythagorean theorem|Newton's laws|the French Revolution|Bayes' theorem|the Monty Hall problem|Moore's law|Kubernetes|the Krebs cycle|quantum computing|the Fibonacci sequence|Python decorators|the Doppler effect|Occam's razor|the Turing test|Shakespearean sonnets|Gantt charts|Docker images|the Dunning-Kruger effect|Fourier transforms|Murphy's law|the Great Depression|the Cold War|Nash equilibrium|Planck's constant|blockchain|the Silk Road|Romanticism|Darwinism|Excel macros|the Big Bang|Hooke's law|Java streams|React hooks|Euler's formula|Dijkstra's algorithm|the Heimlich maneuver|a Ponzi scheme|Pandora's box|the Nobel Prize|Christmas traditions|Black Friday|Halloween|Thanksgiving",
    "product": "iPhone|Android|Tesla|Excel|PowerPoint|Photoshop|Netflix|Spotify|Amazon Prime|Windows 11|PlayStation|Visa card|MasterCard|Bluetooth|WiFi|Chase card|Honda Civic|Uber|Gmail|Facebook",
}  # fmt: skip

CLINICAL = r"""
{ask} a {age}-year-old {sex} with {condition}, {NAME}, {seen} {FACILITY} on {date}{ref}{end}
{ask} a {age}-year-old {sex} with {condition}, {NAME}, {seen} {FACILITY} in {TOWN} on {date}{ref}{end}
{ask} a {age}yo {sex}, {NAME}, with {condition} and {lab}, {seen} {FACILITY} {date}{ref}{end}
{ask} {condition} in a {age}-year-old {sex} named {NAME}, {seen} {BARE} on {date}{end}
{ask} {condition} in {NAME}, a {age} y/o {sex} {lives} {TOWN}, {seen} {BARE} on {date}{ref}{end}
{ask} {NAME}, {age}, {seen} {BARE} for {condition}{end}
{ask} {drug} in a patient like {NAME} {lives} {TOWN}, seen {date}{ref}{end}
{ask} my patient, {NAME}, who was {seen} {BARE} on {date}{end}
pt {NAME}, {age}{sex} w/ {condition}, {seen} {FACILITY} on {date}. {ask} {drug}{end}
Pt {LAST}, {age}, hx of {condition}, seen by Dr. {LAST} at {BARE} {date}.
{role} {NAME} at {FACILITY} prescribed {drug} on {date}. {ask} {condition}{end}
{role} {LAST} from {BARE} called on {date} about {condition}.
{NAME} was diagnosed with {condition} at {FACILITY} on {date} by Dr. {NAME}.
{NAME} ({age}{sex}) presented to {FACILITY} with {condition}. {lab}. Started {drug}.
Can I prescribe {drug} to {NAME}, {age} years old, {lives} {TOWN}, {ST}, {seen} {BARE}{end}
Any interactions between {drug} and {drug} for {NAME}, {seen} {FACILITY} on {date}{ref}{end}
Case of {NAME}, a {age}-year-old {sex} {lives} {TOWN}: {condition}, {lab}. {test} done at {BARE} on {date}.
Patient {NAME} from {TOWN} reports side effects of {drug}.
The patient, {role} {LAST}, was transferred from {BARE} to {FACILITY} on {date} with {condition}.
{ask} {condition} after {test} for {NAME}, insurance ID {id}, phone {phone}{end}
Email {email} regarding {NAME}'s {condition}, {seen} {FACILITY}.
We saw {NAME} today in clinic. {GIVEN} is a {age}-year-old {sex} with {condition}. {GIVEN} takes {drug} {dose}.
{age}yo {sex} {NAME} admitted {date} to {BARE} for {condition}; discharged to {FACILITY}.
{ask} {condition} for {NAME}, {age}{sex}, {seen} our {TOWN} clinic on {date}{ref}{end}
{ask} a {age}-year-old {sex} with {condition} {seen} Dr. {NAME}'s office in {TOWN} on {date}{end}
Follow up with {NAME} at {FACILITY} in {TOWN}, {ST}, {phone}. MRN {id}.
Referral to {FACILITY}, Dr. {NAME}, for {test}.
{condition} progress note: {NAME}, bed 12, {BARE}, {date}. Plan: {drug} {dose}.
her {relation} {NAME} brought her to {BARE} with {condition}.
How to manage {condition} in {NAME}, who {lives} {TOWN} and was seen on {date}{ref}{end}
{ask} {age}-year-old {sex}, {NAME} ({TOWN} resident), {condition} post {test} at {BARE}{end}
"""  # fmt: skip

NOTES = r"""
{label}: {NAME}\nDOB: {date}\nMRN: {id}\n{flabel}: {FACILITY}\nDate of service: {date}\n\nChief complaint: {condition}\nHPI: {GIVEN} is a {age}-year-old {sex} with {condition}. {lab}.\nPlan: {drug} {dose}, {test}.\n\nElectronically signed by {NAME}, MD
{flabel}: {FACILITY}\n{alabel}: {ADDRESS}\n{label}: {NAME}\n{label}: {NAME}\n{tlabel}: {TOWN}\nDiagnosis: {condition}
{label}:    {NAME}\n{alabel}:     {ADDRESS}\nPhone: {phone}\nEmail: {email}
{greeting} {NAME},\n\nThank you for referring {NAME}, a {age}-year-old {sex}, to {FACILITY}. {role} {LAST} has {condition}. We started {drug} {dose}.\n\n{closing}\n{NAME}\n{FACILITY}\n{ADDRESS}
{greeting} {GIVEN},\n\nYour appointment at {FACILITY} is on {date}.\n\n{closing}\n{NAME}
{{"{jlabel}": "{NAME}", "age": {age}, "city": "{TOWN}", "hospital": "{FACILITY}", "diagnosis": "{condition}"}}
{{"resourceType": "Patient", "name": [{{"family": "{LAST}", "given": ["{GIVEN}"]}}], "address": [{{"line": ["{STREETLINE}"], "city": "{TOWN}", "state": "{ST}"}}]}}
PID|1||{id}^^^MRN||{LAST}^{GIVEN}^A||{num}|F|||{STREETLINE}^^{TOWN}^{ST}^{num}||{phone}
name,age,city,condition\n{NAME},{age},{TOWN},{condition}\n{NAME},{age},{TOWN},{condition}\n{NAME},{age},{TOWN},{condition}
<patient><name>{NAME}</name><city>{TOWN}</city><facility>{FACILITY}</facility></patient>
| {label} | {flabel} | Date |\n|---|---|---|\n| {NAME} | {FACILITY} | {date} |\n| {NAME} | {FACILITY} | {date} |
DISCHARGE SUMMARY\n{label}: {NAME}    Age: {age}   Sex: {sex}\nAdmitted: {date}  Discharged: {date}\n{label}: {NAME}\nHospital course: {role} {LAST} was admitted with {condition}. {test} showed {lab}. Discharged on {drug} {dose}.
Claim {id} for {NAME} was denied by {org}. Provider: {FACILITY}, {TOWN}, {ST}. Date of service {date}. Amount ${num}.
Dear {org},\nI am writing to appeal the denial for my {relation} {NAME}, member ID {id}. {GIVEN} received {drug} at {FACILITY} on {date}.\n{closing}\n{NAME}\n{ADDRESS}
{label}: {NAME}, {label}: {NAME}, {flabel}: {BARE}, {date}
Datos del paciente.\nNombre: {GIVEN}.\nApellidos: {LAST} {LAST}.\nDomicilio: {ADDRESS}.\nLocalidad/ Provincia: {TOWN}.\nMédico: {NAME}  NºCol: {num}.
S: {NAME} c/o {condition}. O: {lab}. A: {condition}. P: {drug} {dose}. Seen with {role} {LAST}.
Transcript: Nurse: Good morning, {GIVEN}. Patient: Hi, I'm here to see Dr. {LAST}. Nurse: Date of birth? Patient: {date}.
To: {NAME} <{email}>\nFrom: {NAME} <{email}>\nSubject: {condition}\n\nHi {GIVEN}, please see {NAME} at {BARE} on {date}.\n{GIVEN}
{ADDRESS}
{NAME}\n{ADDRESS}
{NAME}\n{NAME}\n\n{ADDRESS}
"""  # fmt: skip

CHAT = r"""
Compared with {LAST}, both {GIVEN} and {GIVEN} are new; where is {GIVEN}?
The children are {GIVEN}, {GIVEN}, {GIVEN} and {GIVEN}.
{GIVEN}, {GIVEN} and {LAST} run the shop. {LAST} showed {GIVEN} a photo of singer {LAST}.
my cousin is {NAME}, people know me as {GIVEN}
Please register {NAME} as a user, and {NAME} too
a film by {NAME}. Written by {NAME} (music by {NAME}). Director {NAME} agreed.
Come home soon, {GIVEN}. "{GIVEN}, are you there?"
{greeting} {NAME}, I have two homes: {ADDRESS} and {ADDRESS}.
Deliver the parcel to {ADDRESS} before noon. The postcode is in {TOWN}.
The shop is on {ADDRESS}. The office is at {ADDRESS}. Our school stands on {STREETLINE} in {TOWN}.
the crossing of {STREETLINE} and {STREETLINE}
>{NAME}\n>{ADDRESS}\n>{phone}
* {NAME}\n* {org}\n* {ADDRESS}
My name is {NAME}, I come from {TOWN}.
my name is {NAME}
Hi, I'm {NAME}, {lives} {TOWN}, and I'm {age} y/o.
I'm {GIVEN}. What's the weather in {TOWN} tomorrow?
this is {NAME} speaking, my number is {phone}
Please transfer ${num} from {NAME} to {NAME} at {org}
Please update my billing address to {ADDRESS}
I moved from {ADDRESS} to {ADDRESS} last {month}, can you change my {product} account?
What is the address of {org}? It is {ADDRESS}
{org} can be found at {ADDRESS}
My {alabel} is {ADDRESS}, send the {product} there.
Let's meet at {ADDRESS} around five
I live at {ADDRESS} and my {relation} {NAME} lives at {ADDRESS}.
You can call {NAME} on {phone}.
What's the name on the account? It's {NAME}
Agent: Could I have your name? Caller: {NAME}
Is the contract still valid? It is in my {relation}'s name, {NAME}
{NAME} is the CEO of {org}, which has its office at {ADDRESS}
{NAME} lives at {ADDRESS}, where {GIVEN} has worked for {org} since {year}.
{GIVEN}: did you see {GIVEN} yesterday?\n{GIVEN}: No, ask {GIVEN}.
{NAME} said that {NAME} and {NAME} would go to {TOWN}.
The partners are {LAST}, {LAST} and {LAST}.
The {product} of {NAME} and {GIVEN} is broken.
{NAME} wrote a review for {org} that {GIVEN} did not like.
{role} {LAST} and {role} {LAST} met in {TOWN} on {date}.
i have an appointment with {role} {NAME} in {TOWN}
Who is {NAME}? Was {GIVEN} born in {TOWN}?
{greeting} {GIVEN}, can you send this to {NAME} ({email})? {closing} {GIVEN}
The {relation} of {NAME} married {NAME} in {TOWN}, {region}.
Book a flight from {TOWN} to {TOWN} for {NAME}, passport {id}.
{NAME} owns the card {id}, which expires {date}.
As of {date}, {NAME} is employed by {org} as a manager. {GIVEN} reports to {NAME}.
I'd like to order a taxi to {ADDRESS}
"I cannot believe it," said {NAME}. {GIVEN} smiled at {LAST}.
Write a cover letter for {NAME}, {ADDRESS}, applying to {org}.
{NAME} worked two years at {org} with {NAME}, then at {org} in {TOWN}, {region}.
Thank you so much, {GIVEN}! {GIVEN}, could you help again?
An evening with {NAME} – known all over {region}.
{NAME}'s mother {NAME} was a painter from {region}.
{NAME} (born {NAME}) was ten when {GIVEN} moved to {TOWN}.
{role} {NAME} teaches, but {LAST} is better known for {topic}.
How do I open an account in the name of {NAME}? Our office: {ADDRESS}
In this story {GIVEN} is from {TOWN} and {GIVEN} wants to leave. Stay, {GIVEN}!
"""  # fmt: skip

SCHOOL = r"""
{GIVEN} has {num} {thing}. {GIVEN} gives {age} to {GIVEN}. How many {thing} does {GIVEN} have left?
{GIVEN} and {GIVEN} share {num} {thing}. If {GIVEN} gets {age}, how many does {GIVEN} get?
{role} {LAST} bought {num} {thing} at ${age} each. How much did {role} {LAST} pay?
There are {num} {thing} in a box. {GIVEN} takes {age} of them every Monday. How many are left after {age} weeks?
A train leaves {TOWN} at {age} mph. Another leaves {TOWN}. When do they meet?
"""  # fmt: skip

CLEAN = r"""
{ask} a {age}-year-old {sex} with {condition} and {lab}, diagnosed in {year}{end}
{ask} {condition} in patients with {test} and {condition}{end}
{ask} {drug} vs. {drug} in {condition}, according to the {year} {org} guidelines{end}
{ask} a {age}-year-old {sex} with a positive {test} and a history of {condition}{end}
What are the side effects of {drug} in elderly patients with {condition}, especially those {lives} {region}?
Comparison of {drug} and {drug} in {condition} diagnosed in {year}.
Does {test} help to diagnose {condition}? {stat} were used in {region} in {year}.
A total of {num} patients with {condition} treated at the University Hospital of {town} between {year} and {year} were {study}. {stat} were used.
{num} patients {seen} {facility} ({town}, {region}) from {month} {year} to {month} {year} were {study}. Survival was estimated with {stat}.
Consecutive patients at a tertiary centre in {town}, {region}, were {study}. We used {stat}; {drug} reduced mortality (P<0.05).
To determine whether {drug} improves {condition}. Retrospective cohort study. {facility}, {town}, {region}. {num} women with {condition}. {stat}.
Data from the {town} Cancer Registry and the {region} National Health Survey were analysed with {stat}. {germ} was found in {age}%.
We studied {num} veterans in the Department of Veterans Affairs health system and {num} controls from {region}.
Students of the {town} Medical School were {study} with the {test}.
Is {germ} associated with {condition} in {region}? {org} recommends {drug}.
The {test} was performed in {num} children ({age} boys) with {condition}. {stat} showed that {germ} was significant.
{condition} affects about 1 in {num} people in {region}. It is named after the physician who first described it. These resources from {org} offer information about {condition}.
Explain {topic} to a five-year-old.
Write a poem about {topic} in the style of a Western.
What is {topic}? Compare it with {topic}.
Does {condition} run in families? Find a Doctor. Genetic Testing Registry. Support groups: {org}.
How do I set up {product} with {product}? It says Error {num}.
Play the latest album on {product} and set an alarm for {month} {age}.
def {code}(self, {code}: int) -> str:\n    return {code}.{code}({code}, "{code}")  # NOTE: {topic}
SELECT {code}, {code} FROM {code} WHERE {code} = {num} ORDER BY {code};
import {code}\nfrom {code} import {code}\n\nclass {codecap}({codecap}):\n    '''{codecap} of {code}.'''\n    {code} = {num}
$ {code} --{code} {num} | grep {code} > {code}.txt
Let f(x) = {num}x + {age}. Find x such that f(x) = {num}. By {topic}, x > 0.
The {org} released its {year} report on {condition}: cases in {region} rose by {age}%.
Instructor: {topic} (Chapter {age}). Section A: True or False. Question {num}: Describe {topic}.
Summarize the meeting notes: Action Items, Budget Review, Quarterly Goals, Next Steps for {product}.
{ask} {condition} in Asian and African American women after {test}; the {org} trial ({year}) used {drug}{end}
BACKGROUND: {acro} ({acro}) is common in {condition}. METHODS: We compared {acro} and {acro} in {num} subjects. RESULTS: The odds ratio was {age}.{age} (95% CI {age}.1-{age}.9; P = .0{age}). CONCLUSION: {acro} predicts {condition}.
Serum levels of {acro}-{age}, {acro} and {acro} were {age}.{age} ± {age} ng/mL in group A ({num} patients) and {age} in Group B (P < 0.00{age}, {stat}).
The {acro} score, {acro} and {lab} were higher in cases than controls ({age}.{age}% vs {age}%, p={age}.{age}); n = {num}, {num} and {num}, respectively.
Grade {age}, {age} and {age} toxicity, HR {age}.{age}, {age} of {num} ({age}%), stage T{age} N1 M0, C{age}-C{age} levels, {acro} positive.
Do {condition} and {condition} share a cause? A study of the {acro} gene in {region} and Western countries.
In the United States, the {town} Heart Study, the {town} Eye Study and the {last}-{last} trial used the {acro} scale.
The {last} score, {last}'s method and the {last}-{last} classification were applied ({last} et al., {year}).
The {last} test, {last} sign, {last} reflex, {last}'s disease and {last} syndrome are described in {condition}.
What does a positive {last} sign mean in a {age}-year-old {sex} with {condition}?
{ask} a {age}-year-old {sex} with an abnormal {last}-{last} score and {lab}, recently evaluated at a community clinic{end}
{ask} a {age}-year-old {sex} with {acro} and {condition}, living near a university hospital{end}
{ask} {condition} using the {last} criteria, considering recommendations from the {org} and {acro} ({year}){end}
{ask} {acro} in a {age}-year-old {sex} with no known allergies, currently on the keto diet since {month} {year}{end}
Inpatient Mortality, Emergency Department Visits and Postoperative Complications after {test}: a Systematic Review.
Postoperatively, {drug} was given. Preoperatively, {acro} was measured. Interestingly, {germ} was absent. Cholestasis resolved.
Hospital A and Hospital B, the ICU, the ED and the Department of Medicine had {num} beds; Medicaid and Medicare paid {age}%.
{num} nurses of three community health centers in North and West {region} answered. Family Medicine, Nursing and Surgery differed.
{drug} hydrochloride, dimethyl sulfoxide, interferon alpha, Vitamin D, Omega-3, Factor VIII, Type II collagen and IgG were used.
{medword} is a drug used for {condition}. {medword}, {medword} and {medword} may help. {medword} was {study}. Keywords: {medword}; {acro}; {medword}.
What is (are) {medword} ?\n{medword} is a disorder of the blood. {medword}s are treated with {medword}. Signs: {medword}, {medword}.
How to diagnose {medword} {medword} syndrome? Smoking, Cigarette use, Diet, Exercise. Hispanics and Whites were included.
Translate to Spanish: Where is the Train Station? It is on Monday.
{num} {thing} cost ${age}. How much do {num} {thing} cost in {month}?
"""  # fmt: skip
